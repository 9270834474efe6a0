/*
 * /cores: every core is asked by a message for what it has served; the answers come as futures.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "httpd.h"

/* What one core tells of itself; travels as the value of a future. */
struct served {
    uint64_t requests;
    uint64_t connections;
    uint64_t allocations;
};
_Static_assert(sizeof(struct served) <= sizeof(union shoal_value), "fits a future's value");

static int stats_here(void *arg, union shoal_value *out)
{
    const struct httpd *httpd = arg;
    struct shoal_http_stats http;
    struct shoal_mem_stats mem;
    shoal_http_stats(httpd->server, &http);
    shoal_mem_stats(&mem);
    const struct served served = {http.requests, http.connections, mem.allocs};
    memcpy(out->bytes, &served, sizeof(served));
    return 0;
}

int httpd_cores(struct shoal_http_request *request, void *arg)
{
    unsigned count = shoal_core_count();
    struct shoal_future *answers[SHOAL_CORES_MAX];
    for (unsigned core = 0; core < count; core++)
        answers[core] = shoal_submit_to(core, stats_here, arg);

    char line[160];
    int n = snprintf(line, sizeof(line), "{\"answered_by\":%d,\"io_backend\":\"%s\",\"cores\":[",
                     shoal_core_id(), shoal_core_io_backend());
    int rc = shoal_http_begin(request, 200, "application/json", SHOAL_HTTP_CHUNKED);
    if (rc == 0)
        rc = shoal_http_write(request, line, (size_t)n);
    for (unsigned core = 0; core < count; core++) {
        union shoal_value value;
        int answered = shoal_await(answers[core], &value); /* each is consumed, come what may */
        if (rc == 0)
            rc = answered;
        if (rc < 0)
            continue;
        struct served served;
        memcpy(&served, value.bytes, sizeof(served));
        n = snprintf(line, sizeof(line),
                     "%s{\"core\":%u,\"requests\":%llu,\"connections\":%llu,\"allocations\":%llu}",
                     core > 0 ? "," : "", core, (unsigned long long)served.requests,
                     (unsigned long long)served.connections,
                     (unsigned long long)served.allocations);
        rc = shoal_http_write(request, line, (size_t)n);
    }
    if (rc == 0)
        rc = shoal_http_write(request, "]}\n", 3);
    return rc < 0 ? rc : shoal_http_end(request);
}
