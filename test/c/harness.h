/* A small test framework: tests register themselves, a program runs all of them or those named on
 * its command line, and its last line is `N passed, N failed`.
 *
 *     #include "harness.h"
 *
 *     TEST(list_starts_empty) {
 *         struct hf__list list;
 *         hf__list_init(&list);
 *         CHECK(hf__list_empty(&list));
 *     }
 *
 * harness.c holds main(). A program takes the names of tests (a trailing `*` matches a prefix),
 * `--list`, or nothing to run all, in the order in which they stand in the file.
 *
 * A CHECK that fails is reported with file and line, and the test goes on; REQUIRE leaves the test,
 * so what the test allocated before it stays allocated: use it where going on would crash. Checks
 * may be made from any thread; REQUIRE, SKIP and the test itself belong to the main thread.
 */
#ifndef HF_TEST_HARNESS_H
#define HF_TEST_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void (*hf_test_fn)(void);

struct hf_test {
    const char *name;
    const char *file;
    hf_test_fn run;
    struct hf_test *next;
};

/* Adds a test to the program. Main thread, before main(); `test` must stay alive. */
void hf_test_register(struct hf_test *test);

/* Counts one failed check of the running test and prints where and what. Any thread. */
void hf_test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Ends the running test as failed, or as skipped for `reason`. Main thread; does not return. */
void hf_test_abandon(void) __attribute__((noreturn));
void hf_test_skip(const char *file, int line, const char *reason) __attribute__((noreturn));

/* The comparisons behind the macros below: true where they hold, else they report. Any thread. */
bool hf_test_check(const char *file, int line, const char *text, bool holds);
bool hf_test_check_int(const char *file, int line, const char *text, int64_t actual,
                       int64_t expected);
bool hf_test_check_uint(const char *file, int line, const char *text, uint64_t actual,
                        uint64_t expected);
bool hf_test_check_str(const char *file, int line, const char *text, const char *actual,
                       const char *expected);
bool hf_test_check_mem(const char *file, int line, const char *text, const void *actual,
                       const void *expected, size_t size);

/* A fresh folder for files of the running test, made on first use and removed with all it holds
 * when the test ends. Owned by the harness. Main thread. */
const char *hf_test_folder(void);

#define TEST(name)                                                         \
    static void test_##name(void);                                         \
    __attribute__((constructor)) static void register_##name(void) {       \
        static struct hf_test test = {#name, __FILE__, test_##name, NULL}; \
        hf_test_register(&test);                                           \
    }                                                                      \
    static void test_##name(void)

#define FAIL(...) hf_test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(reason) hf_test_skip(__FILE__, __LINE__, reason)

#define CHECK(condition) hf_test_check(__FILE__, __LINE__, #condition, (condition))
#define CHECK_INT(actual, expected) \
    hf_test_check_int(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected))
#define CHECK_UINT(actual, expected) \
    hf_test_check_uint(__FILE__, __LINE__, #actual, (uint64_t)(actual), (uint64_t)(expected))
#define CHECK_STR(actual, expected) \
    hf_test_check_str(__FILE__, __LINE__, #actual, (actual), (expected))
#define CHECK_MEM(actual, expected, size) \
    hf_test_check_mem(__FILE__, __LINE__, #actual, (actual), (expected), (size))
#define CHECK_NULL(pointer) hf_test_check(__FILE__, __LINE__, #pointer " is NULL", !(pointer))
#define CHECK_NOT_NULL(pointer) \
    hf_test_check(__FILE__, __LINE__, #pointer " is not NULL", (pointer) != NULL)

#define REQUIRE(condition)                        \
    do {                                          \
        if (!CHECK(condition)) hf_test_abandon(); \
    } while (0)
#define REQUIRE_INT(actual, expected)                        \
    do {                                                     \
        if (!CHECK_INT(actual, expected)) hf_test_abandon(); \
    } while (0)

#endif
