/*
 * The statements of store/postgres/schema.sql. The .c is made by script/embed.js.
 */
#ifndef HF_STORE_POSTGRES_SCHEMA_H
#define HF_STORE_POSTGRES_SCHEMA_H

/* One after another; NULL ends them. */
extern const char *const hf__postgres_schema[];

#endif
