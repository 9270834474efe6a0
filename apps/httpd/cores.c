/*
 * /cores: every core is asked by a message for what it has served; the answers come as futures.
 */
#include <errno.h>
#include <stdio.h>

#include "httpd.h"

static int stats_here(void *arg, union shoal_value *out)
{
    const struct httpd *httpd = arg;
    struct shoal_http_stats stats;
    shoal_http_stats(httpd->server, &stats);
    out->slice.size = stats.requests;
    out->slice.tag = stats.connections;
    return 0;
}

int httpd_cores(struct shoal_http_request *request, void *arg)
{
    unsigned count = shoal_core_count();
    struct shoal_future *answers[SHOAL_CORES_MAX];
    for (unsigned core = 0; core < count; core++)
        answers[core] = shoal_submit_to(core, stats_here, arg);

    char line[128];
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
        n = snprintf(line, sizeof(line), "%s{\"core\":%u,\"requests\":%llu,\"connections\":%llu}",
                     core > 0 ? "," : "", core, (unsigned long long)value.slice.size,
                     (unsigned long long)value.slice.tag);
        rc = shoal_http_write(request, line, (size_t)n);
    }
    if (rc == 0)
        rc = shoal_http_write(request, "]}\n", 3);
    return rc < 0 ? rc : shoal_http_end(request);
}
