/* The store contract (csrc/core/store.h), as tests. A store's test program names its subject and
 * lets the suite define one TEST for each part:
 *
 *     static const store_subject hf__subject = {.vt = &hf__memory_store, ...};
 *     HF_CONFORMANCE_TESTS()
 *
 * Parts that need what the store has not (its vtable's caps, a hook of the subject) are skipped and
 * say so. Every part takes a world that is open, so that a test can have allocations fail in it. */
#ifndef HF_TEST_CONFORMANCE_H
#define HF_TEST_CONFORMANCE_H

#include "harness.h"
#include "support-rig.h"

/* Parts that ask for one thing after another: they hold unchanged while allocations fail. */
#define HF_CONFORMANCE(X)          \
    X(admission)                   \
    X(refusal_tells_of_the_holder) \
    X(take_is_idempotent)          \
    X(take_several_keys)           \
    X(hand_over)                   \
    X(keep)                        \
    X(drop)                        \
    X(intent_marks)                \
    X(lapse)                       \
    X(fences_grow)                 \
    X(fences_outlive_leases)       \
    X(list_leases)                 \
    X(list_pages)                  \
    X(sweep)                       \
    X(values)                      \
    X(put_conditions)              \
    X(del_conditions)              \
    X(put_is_idempotent)           \
    X(claims)                      \
    X(claims_lapse)                \
    X(entries_expire)              \
    X(entry_fences)                \
    X(tombstones)                  \
    X(add)                         \
    X(add_conditions)              \
    X(versions_never_repeat)       \
    X(random_leases)

/* Parts about how a store lives, and about several at once. */
#define HF_CONFORMANCE_LIFE(X)     \
    X(ops_before_open)             \
    X(close_ends_what_came_before) \
    X(ops_after_close)             \
    X(close_unopened)              \
    X(chains)                      \
    X(long_chains)                 \
    X(cancel)                      \
    X(done_may_submit)             \
    X(watch_leases)                \
    X(watch_entries)               \
    X(watch_many)                  \
    X(unwatch_within_fire)         \
    X(instances_share)             \
    X(two_threads)                 \
    X(reopen)                      \
    X(reboot)                      \
    X(rewind)

#define HF__DECLARE_PART(name) void conformance_##name(world *w);
HF_CONFORMANCE(HF__DECLARE_PART)
HF_CONFORMANCE_LIFE(HF__DECLARE_PART)

/* Runs one part in a world of its own. With an injector, with every allocation failing once; then
 * it checks that some did. */
void conformance_run(const store_subject *subject, void (*part)(world *w), injector *starve);

#define HF__TEST_PART(name)                                      \
    TEST(name) {                                                 \
        conformance_run(&hf__subject, conformance_##name, NULL); \
    }

#define HF_CONFORMANCE_TESTS()    \
    HF_CONFORMANCE(HF__TEST_PART) \
    HF_CONFORMANCE_LIFE(HF__TEST_PART)

#endif
