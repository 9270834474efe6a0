/*
 * The HTTP workloads: the same answer, once from the core that has the connection, and once after a
 * question to another core, each of the others in turn. With one core the question goes to itself.
 */
#include <errno.h>

#include "scaling.h"

/* A core's own; a line each, so that they do not meet. */
struct hops {
    uint64_t answered; /* questions of other cores */
    unsigned last;     /* core that was asked */
} __attribute__((aligned(SHOAL_CACHE_LINE)));

static struct hops hops[SHOAL_CORES_MAX];

static int reply(struct shoal_http_request *request)
{
    return shoal_http_reply(request, 200, "text/plain", "Hello, World!", 13);
}

static int plaintext(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    return reply(request);
}

static int answer(void *arg, union shoal_value *out)
{
    (void)arg;
    hops[shoal_core_id()].answered++;
    out->u64 = (uint64_t)shoal_core_id();
    return 0;
}

/* Fails, and so ends the measurement, unless it was the other core that answered. */
static int hop(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    unsigned self = (unsigned)shoal_core_id();
    struct hops *mine = &hops[self];
    unsigned to = scaling_next_core(mine->last);
    union shoal_value by;
    mine->last = to;
    int rc = shoal_await(shoal_submit_to(to, answer, NULL), &by);
    if (rc == 0 && (by.u64 != to || (to == self && shoal_core_count() > 1)))
        rc = -EIO;
    return rc < 0 ? rc : reply(request);
}

int scaling_serve(const struct scaling *scaling)
{
    for (unsigned core = 0; core < shoal_core_count(); core++)
        hops[core].last = core;
    struct shoal_http_server *server = shoal_http_server_new(&scaling->http);
    if (server == NULL)
        return -ENOMEM;
    int rc = shoal_http_route(server, "GET", "/plaintext", plaintext, NULL);
    if (rc == 0)
        rc = shoal_http_route(server, "GET", "/hop", hop, NULL);
    if (rc < 0) {
        shoal_http_server_free(server);
        return rc;
    }
    return shoal_http_serve(server);
}
