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

/* Connections that changed cores, see --accept-balance. */
struct moved {
    uint64_t handed;
    uint64_t kept;
    uint64_t taken;
};
_Static_assert(sizeof(struct moved) <= sizeof(union shoal_value), "fits a future's value");

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

static int moved_here(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_handover_stats stats;
    shoal_handover_stats(&stats);
    const struct moved moved = {stats.handed, stats.kept, stats.taken};
    memcpy(out->bytes, &moved, sizeof(moved));
    return 0;
}

/* Awaits both answers of a core, which are consumed, come what may, and says them as JSON. */
static int tell_core(char *line, size_t size, unsigned core, struct shoal_future *answers[2])
{
    union shoal_value first, second;
    int rc = shoal_await(answers[0], &first);
    int also = shoal_await(answers[1], &second);
    if (rc < 0 || also < 0)
        return rc < 0 ? rc : also;
    struct served served;
    struct moved moved;
    memcpy(&served, first.bytes, sizeof(served));
    memcpy(&moved, second.bytes, sizeof(moved));
    return snprintf(line, size,
                    "%s{\"core\":%u,\"requests\":%llu,\"connections\":%llu,"
                    "\"allocations\":%llu,\"handed\":%llu,\"kept\":%llu,\"taken\":%llu}",
                    core > 0 ? "," : "", core, (unsigned long long)served.requests,
                    (unsigned long long)served.connections, (unsigned long long)served.allocations,
                    (unsigned long long)moved.handed, (unsigned long long)moved.kept,
                    (unsigned long long)moved.taken);
}

int httpd_cores(struct shoal_http_request *request, void *arg)
{
    unsigned count = shoal_core_count();
    struct shoal_future *answers[SHOAL_CORES_MAX][2];
    for (unsigned core = 0; core < count; core++) {
        answers[core][0] = shoal_submit_to(core, stats_here, arg);
        answers[core][1] = shoal_submit_to(core, moved_here, NULL);
    }

    char line[320];
    int n = snprintf(line, sizeof(line), "{\"answered_by\":%d,\"io_backend\":\"%s\",\"cores\":[",
                     shoal_core_id(), shoal_core_io_backend());
    int rc = shoal_http_begin(request, 200, "application/json", SHOAL_HTTP_CHUNKED);
    if (rc == 0)
        rc = shoal_http_write(request, line, (size_t)n);
    for (unsigned core = 0; core < count; core++) {
        n = tell_core(line, sizeof(line), core, answers[core]);
        if (rc == 0)
            rc = n < 0 ? n : shoal_http_write(request, line, (size_t)n);
    }
    if (rc == 0)
        rc = shoal_http_write(request, "]}\n", 3);
    return rc < 0 ? rc : shoal_http_end(request);
}
