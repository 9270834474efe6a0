/*
 * /sum?a=1&b=2, as a chain of futures: each stage gets what the one before made, and a failure
 * skips the rest.
 */
#include <errno.h>
#include <stdio.h>

#include "httpd.h"

#define TERM_MAX 1000000000000

/* The value that travels: slice.size and slice.tag hold the two terms. */
static int parse(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    struct shoal_str query = shoal_http_head(arg)->query;
    int64_t a;
    int64_t b;
    if (shoal_query_get_i64(query, "a", INT64_MIN, INT64_MAX, &a) < 0 ||
        shoal_query_get_i64(query, "b", INT64_MIN, INT64_MAX, &b) < 0)
        return -EINVAL;
    out->slice.size = (uint64_t)a;
    out->slice.tag = (uint64_t)b;
    return 0;
}

static struct shoal_future *validate(void *arg, const union shoal_value *in)
{
    (void)arg;
    int64_t a = (int64_t)in->slice.size;
    int64_t b = (int64_t)in->slice.tag;
    if (a > TERM_MAX || a < -TERM_MAX || b > TERM_MAX || b < -TERM_MAX)
        return shoal_future_failed(-EINVAL, "a and b: allowed are -%lld to %lld",
                                   (long long)TERM_MAX, (long long)TERM_MAX);
    union shoal_value sum = {.i64 = a + b};
    return shoal_future_ready(&sum);
}

static int respond(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)out;
    char text[32];
    snprintf(text, sizeof(text), "%lld\n", (long long)in->i64);
    return shoal_http_reply_text(arg, 200, text);
}

struct shoal_future *httpd_sum(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_future *parsed = shoal_then(shoal_future_ready(NULL), parse, request);
    struct shoal_future *valid = shoal_then_future(parsed, validate, request);
    return shoal_then(valid, respond, request);
}
