/*
 * Randomness from the system.
 */
#ifndef HF_UTIL_RANDOM_H
#define HF_UTIL_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fills `p` with unpredictable bytes (getrandom, getentropy). False if the system has none. Any
 * thread. */
bool hf__random(void *p, size_t n);

/* A jittered duration: evenly spread over [low, high]. Not for secrets; never fails. Any thread. */
uint64_t hf__random_between(uint64_t low, uint64_t high);

#endif
