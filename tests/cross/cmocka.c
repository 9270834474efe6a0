/*
 * The runner behind tests/cross/include/cmocka.h: a failed assertion jumps back here, as in cmocka.
 */
#include "cmocka.h"

static jmp_buf after_failure;

void cross_fail(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    fprintf(stderr, "%s:%d: does not hold: ", file, line);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    longjmp(after_failure, 1);
}

/* Whether the test passed. */
static int run_one(const struct CMUnitTest *test, void **state)
{
    volatile int passed = 0;
    printf("[ RUN      ] %s\n", test->name);
    fflush(stdout);
    if (setjmp(after_failure) == 0) {
        if (test->setup == NULL || test->setup(state) == 0) {
            test->test(state);
            passed = 1;
        }
        if (test->teardown != NULL && test->teardown(state) != 0)
            passed = 0;
    } else {
        passed = 0;
    }
    printf("[ %s ] %s\n", passed ? "      OK" : " FAILED ", test->name);
    return passed;
}

int cross_run(const struct CMUnitTest *tests, size_t count, int (*up)(void **state),
              int (*down)(void **state))
{
    void *state = NULL;
    size_t passed = 0;
    printf("[==========] Running %zu test(s).\n", count);
    if (up != NULL && up(&state) != 0)
        return 1;
    for (size_t i = 0; i < count; i++)
        passed += (size_t)run_one(&tests[i], &state);
    if (down != NULL)
        (void)down(&state);
    printf("[==========] %zu test(s) run.\n[  PASSED  ] %zu test(s).\n", count, passed);
    if (passed < count)
        printf("[  FAILED  ] %zu test(s), listed above\n", count - passed);
    return (int)(count - passed);
}
