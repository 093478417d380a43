/*
 * In place of the PostgreSQL store where the build has found no libpq: says so, and what to do.
 */
#include "core/error.h"
#include "driver/postgres/config.h"
#include "store/stores.h"

static hf_code init(hf_store *store, hf_error *error) {
    (void)store;
    return hf__error_set(
        error, HF_ENOTSUP, 0,
        "this build of Holdfast has no PostgreSQL, for libpq was not there: install "
        "it with its headers (Debian, Ubuntu: libpq-dev), then run `npm rebuild "
        "--build-from-source holdfast`");
}

const hf_store_vtable hf__postgres_absent_store = {
    .name = "postgres",
    .schemes = "postgres postgresql",
    .size = sizeof(hf_store),
    .params = HF__PG_PARAMS " " HF__POSTGRES_PARAMS,
    .init = init,
};
