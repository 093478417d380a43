#include "harness.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum outcome { PASSED, FAILED, SKIPPED };
enum { ABANDONED = 1, SKIPPING = 2 };

/* A program is one run of one list of tests, and constructors have nothing to hang a context on:
 * the one place in the tests where state is global. */
static struct {
    struct hf_test *first;
    struct hf_test **end;
    const struct hf_test *running;
    pid_t pid;
    atomic_int failures;
    jmp_buf leave;
    char folder[64];
    int counts[3];
} harness = {.end = &harness.first};

void hf_test_register(struct hf_test *test) {
    *harness.end = test;
    harness.end = &test->next;
}

void hf_test_fail(const char *file, int line, const char *format, ...) {
    char message[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    atomic_fetch_add(&harness.failures, 1);
    /* One call, so that two threads' reports do not mix. */
    printf("    %s:%d: %s\n", file, line, message);
}

void hf_test_abandon(void) {
    longjmp(harness.leave, ABANDONED);
}

void hf_test_skip(const char *file, int line, const char *reason) {
    printf("    %s:%d: skipped: %s\n", file, line, reason);
    longjmp(harness.leave, SKIPPING);
}

bool hf_test_check(const char *file, int line, const char *text, bool holds) {
    if (!holds) hf_test_fail(file, line, "does not hold: %s", text);
    return holds;
}

bool hf_test_check_int(const char *file, int line, const char *text, int64_t actual,
                       int64_t expected) {
    if (actual == expected) return true;
    hf_test_fail(file, line, "%s is %lld, expected %lld", text, (long long)actual,
                 (long long)expected);
    return false;
}

bool hf_test_check_uint(const char *file, int line, const char *text, uint64_t actual,
                        uint64_t expected) {
    if (actual == expected) return true;
    hf_test_fail(file, line, "%s is %llu, expected %llu", text, (unsigned long long)actual,
                 (unsigned long long)expected);
    return false;
}

bool hf_test_check_str(const char *file, int line, const char *text, const char *actual,
                       const char *expected) {
    if (actual == expected || (actual && expected && strcmp(actual, expected) == 0)) return true;
    hf_test_fail(file, line, "%s is \"%s\", expected \"%s\"", text, actual ? actual : "(NULL)",
                 expected ? expected : "(NULL)");
    return false;
}

bool hf_test_check_mem(const char *file, int line, const char *text, const void *actual,
                       const void *expected, size_t size) {
    const unsigned char *is = actual;
    const unsigned char *should = expected;
    size_t at = 0;

    if (size == 0) return true;
    if (!is || !should) {
        hf_test_fail(file, line, "%s: one of the two is NULL", text);
        return false;
    }
    while (at < size && is[at] == should[at])
        at++;
    if (at == size) return true;
    hf_test_fail(file, line, "%s differs at byte %zu of %zu: 0x%02x, expected 0x%02x", text, at,
                 size, is[at], should[at]);
    return false;
}

const char *hf_test_folder(void) {
    const char *base = getenv("TMPDIR");

    if (harness.folder[0]) return harness.folder;
    if (!base || strlen(base) > 40) base = "/tmp";
    snprintf(harness.folder, sizeof harness.folder, "%s/holdfast-XXXXXX", base);
    if (mkdtemp(harness.folder)) return harness.folder;
    perror(harness.folder);
    abort();
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place) {
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

static void remove_folder(void) {
    if (!harness.folder[0]) return;
    nftw(harness.folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    harness.folder[0] = '\0';
}

static double milliseconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static enum outcome run_body(const struct hf_test *test) {
    switch (setjmp(harness.leave)) {
    case 0: test->run(); return PASSED;
    case SKIPPING: return SKIPPED;
    default: return FAILED;
    }
}

static void run_test(const struct hf_test *test) {
    static const char *const words[] = {"ok", "FAILED", "skipped"};
    double start = milliseconds();
    enum outcome outcome;

    atomic_store(&harness.failures, 0);
    harness.running = test;
    outcome = run_body(test);
    remove_folder();
    if (atomic_load(&harness.failures) > 0) outcome = FAILED;
    harness.counts[outcome]++;
    printf("  %-7s %s (%.0f ms)\n", words[outcome], test->name, milliseconds() - start);
}

static bool matches(const char *pattern, const char *name) {
    size_t length = strlen(pattern);

    if (length > 0 && pattern[length - 1] == '*') return strncmp(pattern, name, length - 1) == 0;
    return strcmp(pattern, name) == 0;
}

/* True where no name was asked for, or this one. */
static bool wanted(const struct hf_test *test, int count, char **patterns) {
    for (int at = 0; at < count; at++) {
        if (matches(patterns[at], test->name)) return true;
    }
    return count == 0;
}

/* A sanitizer, or an exit in the middle, ends the program: say in which test. A child that a test
 * forked says nothing. */
static void name_the_running(void) {
    if (harness.running && harness.pid == getpid())
        printf("    the program ended inside %s\n", harness.running->name);
}

int main(int argc, char **argv) {
    const char *program = strrchr(argv[0], '/');
    bool list = argc == 2 && strcmp(argv[1], "--list") == 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    harness.pid = getpid();
    atexit(name_the_running);
    program = program ? program + 1 : argv[0];
    if (!list) printf("%s\n", program);
    for (struct hf_test *test = harness.first; test; test = test->next) {
        if (list) {
            puts(test->name);
        } else if (wanted(test, argc - 1, argv + 1)) {
            run_test(test);
        }
    }
    harness.running = NULL;
    if (list) return 0;
    if (harness.counts[SKIPPED] > 0) printf("%d skipped\n", harness.counts[SKIPPED]);
    printf("%d passed, %d failed\n", harness.counts[PASSED], harness.counts[FAILED]);
    return harness.counts[FAILED] > 0 || harness.counts[PASSED] + harness.counts[SKIPPED] == 0;
}
