/*
 * The server: options, start on every core, stop.
 */
#include "shoal/net/http/server.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"

#include "shoal/smp/app.h"
#include "shoal/smp/submit.h"
#include "shoal/smp/topology.h"

#include "shoal/net/http/http_impl.h"

#define STOP_LOOK_NS (2 * SHOAL_NS_PER_MS)
/* At stop, for a client that was accepted and has not sent anything yet. */
#define FRESH_GRACE_NS SHOAL_NS_PER_S
#define TIMEOUT_MIN    (SHOAL_NS_PER_MS)
#define TIMEOUT_MAX    (86400 * SHOAL_NS_PER_S)
#define BODY_MAX       (UINT64_C(1) << 40)

void shoal_http_options_init(struct shoal_http_options *options)
{
    *options = (struct shoal_http_options){
        .host = "127.0.0.1",
        .port = 8080,
        .head_bytes_max = SHOAL_HTTP_HEAD_BYTES_MAX_DEFAULT,
        .fields_max = SHOAL_HTTP_FIELDS_MAX_DEFAULT,
        .uri_bytes_max = SHOAL_HTTP_URI_BYTES_MAX_DEFAULT,
        .body_bytes_max = UINT64_C(1) << 20,
        .header_timeout_ns = 10 * SHOAL_NS_PER_S,
        .body_timeout_ns = 30 * SHOAL_NS_PER_S,
        .idle_timeout_ns = 75 * SHOAL_NS_PER_S,
        .write_timeout_ns = 30 * SHOAL_NS_PER_S,
    };
}

void shoal_http_options_table(struct shoal_http_options *options, struct shoal_option *table)
{
    const struct shoal_option entries[SHOAL_HTTP_OPTION_COUNT] = {
        {"host", SHOAL_OPTION_STRING, (void *)&options->host, "ADDRESS",
         "Address to listen at, or unix:/path.", 0, 0, NULL, NULL},
        {"port", SHOAL_OPTION_UINT, &options->port, "N",
         "Port to listen at; 0 for one that the kernel chooses.", 0, 65535, NULL, NULL},
        {"max-body", SHOAL_OPTION_SIZE, &options->body_bytes_max, "SIZE",
         "Largest body of a request.", 0, BODY_MAX, NULL, NULL},
        {"header-timeout", SHOAL_OPTION_SECONDS_NS, &options->header_timeout_ns, "SECONDS",
         "Time for the head of a request to arrive.", TIMEOUT_MIN, TIMEOUT_MAX, NULL, NULL},
        {"body-timeout", SHOAL_OPTION_SECONDS_NS, &options->body_timeout_ns, "SECONDS",
         "Time between two pieces of a request's body.", TIMEOUT_MIN, TIMEOUT_MAX, NULL, NULL},
        {"idle-timeout", SHOAL_OPTION_SECONDS_NS, &options->idle_timeout_ns, "SECONDS",
         "Time between two requests of a connection.", TIMEOUT_MIN, TIMEOUT_MAX, NULL, NULL},
        {"write-timeout", SHOAL_OPTION_SECONDS_NS, &options->write_timeout_ns, "SECONDS",
         "Time for a client to take any part of an answer.", TIMEOUT_MIN, TIMEOUT_MAX, NULL, NULL},
        {.name = NULL},
    };
    memcpy(table, entries, sizeof(entries));
}

static void check_mine(const struct shoal_http_server *server, const char *op)
{
    SHOAL_CHECK_OWNER(server->core, op, "HTTP server %p", (const void *)server);
}

struct shoal_http_server *shoal_http_server_new(const struct shoal_http_options *options)
{
    struct shoal_http_server *server = shoal_mem_alloc_zeroed(sizeof(*server));
    if (server == NULL)
        return NULL;
    SHOAL_NOTE_OWNER(server->core);
    if (options != NULL)
        server->options = *options;
    else
        shoal_http_options_init(&server->options);
    server->limits.head_bytes_max = (uint32_t)server->options.head_bytes_max;
    server->limits.fields_max = (uint32_t)server->options.fields_max;
    server->limits.uri_bytes_max = (uint32_t)server->options.uri_bytes_max;
    server->cores = shoal_core_count();
    server->shards = shoal_mem_alloc_zeroed(server->cores * sizeof(*server->shards));
    if (server->shards == NULL) {
        shoal_mem_free(server, sizeof(*server));
        return NULL;
    }
    uint32_t share = shoal_config_max_connections() / server->cores;
    server->connections_max = share > 0 ? share : 1;
    return server;
}

static void server_at_stop(void *arg)
{
    struct shoal_http_server *server = arg;
    server->hooked = false;
    shoal_http_stop(server, shoal_config_shutdown_timeout_ns());
    shoal_http_server_free(server);
}

void shoal_http_server_free(struct shoal_http_server *server)
{
    if (server == NULL)
        return;
    check_mine(server, "free");
    if (server->hooked)
        (void)shoal_at_stop_cancel(server_at_stop, server);
    if (server->listening != NULL || server->shards[0] != NULL)
        shoal_http_stop(server, 0);
    shoal_router_deinit(&server->router);
    shoal_mem_free(server->shards, server->cores * sizeof(*server->shards));
    shoal_mem_free(server, sizeof(*server));
}

static int add_route(struct shoal_http_server *server, const char *method, const char *pattern,
                     const struct shoal_route *route)
{
    if (server == NULL)
        return -ENOMEM; /* shoal_http_server_new() found none; shoal_http_serve() says so */
    check_mine(server, "route");
    SHOAL_CHECK(server->listening == NULL, "route %s is added to a running server", pattern);
    int rc = shoal_router_add(&server->router, method, pattern, route);
    if (rc == -ENOMEM)
        server->route_missing = true;
    return rc;
}

int shoal_http_route(struct shoal_http_server *server, const char *method, const char *pattern,
                     shoal_http_handler *handler, void *arg)
{
    const struct shoal_route route = {.handler = handler, .arg = arg};
    return add_route(server, method, pattern, &route);
}

int shoal_http_route_future(struct shoal_http_server *server, const char *method,
                            const char *pattern, shoal_http_future_handler *handler, void *arg)
{
    const struct shoal_route route = {.future_handler = handler, .arg = arg};
    return add_route(server, method, pattern, &route);
}

void shoal_http_stats(const struct shoal_http_server *server, struct shoal_http_stats *out)
{
    SHOAL_CHECK_ON_CORE("statistics of an HTTP server");
    const struct shoal_http_shard *shard = server->shards[shoal_core_self->id];
    *out = shard != NULL ? shard->stats : (struct shoal_http_stats){0};
}

/* ---- Start ---- */

static int shard_start(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_http_server *server = arg;
    struct shoal_http_shard *shard = shoal_mem_alloc_zeroed(sizeof(*shard));
    if (shard == NULL)
        return -ENOMEM;
    shard->server = server;
    shoal_list_init(&shard->connections);
    shoal_slab_init(&shard->connection_slab, "http connection",
                    sizeof(struct shoal_http_connection), 16);
    size_t request_bytes = sizeof(struct shoal_http_request) +
                           server->options.fields_max * sizeof(struct shoal_http_field);
    shoal_slab_init(&shard->request_slab, "http request", (uint32_t)request_bytes, 64);
    struct shoal_net *net = shoal_net_self();
    if (net == NULL || shoal_slab_reserve(&net->blocks) != 0 ||
        shoal_slab_reserve(&shard->connection_slab) != 0 ||
        shoal_slab_reserve(&shard->request_slab) != 0) {
        shoal_slab_deinit(&shard->connection_slab);
        shoal_slab_deinit(&shard->request_slab);
        shoal_mem_free(shard, sizeof(*shard));
        return -ENOMEM;
    }
    server->shards[shoal_core_self->id] = shard;
    return 0;
}

static int start_error(const struct shoal_http_server *server, int rc, const char *detail)
{
    const char *host = server->options.host;
    unsigned port = (unsigned)server->options.port;
    bool is_unix = strncmp(host, "unix:", 5) == 0;
    switch (rc) {
    case -EADDRINUSE:
        if (is_unix)
            return shoal_config_error("--host: \"%s\" is in use (allowed: a path that no process "
                                      "listens at)",
                                      host);
        return shoal_config_error("--port: \"%u\" on %s is in use by another process (allowed: a "
                                  "free port, or 0 for any)",
                                  port, host);
    case -EACCES:
    case -EPERM:
        if (is_unix)
            return shoal_config_error("--host: \"%s\" is forbidden to this user", host);
        return shoal_config_error("--port: \"%u\" on %s is forbidden to this user (allowed: 1024 "
                                  "to 65535, or 0 for any)",
                                  port, host);
    case -EADDRNOTAVAIL:
        return shoal_config_error("--host: \"%s\" is no address of this machine", host);
    default:
        if (detail[0] != '\0') /* it names the host itself */
            return shoal_config_error("--host: %s", detail);
        return shoal_config_error("--host: \"%s\": %s", host, shoal_error_text(rc));
    }
}

/* Has the server stopped with the program, unless it is freed before. Once. */
static int hook_stop(struct shoal_http_server *server)
{
    int rc = server->hooked ? 0 : shoal_at_stop(server_at_stop, server);
    if (rc == 0)
        server->hooked = true;
    return rc;
}

static void log_listening(const struct shoal_http_server *server)
{
    char text[SHOAL_ADDRESS_TEXT_MAX];
    const struct shoal_address *address = shoal_listening_address(server->listening);
    shoal_address_format(address, text, sizeof(text));
    shoal_announce_backend();
    SHOAL_INFO("listening on %s%s (%u core%s)", shoal_address_is_unix(address) ? "" : "http://",
               text, server->cores, server->cores == 1 ? "" : "s");
}

int shoal_http_start(struct shoal_http_server *server)
{
    struct shoal_address address;
    char error[SHOAL_ADDRESS_ERROR_MAX] = "";
    check_mine(server, "start");
    if (server->route_missing)
        return -ENOMEM;
    int rc = shoal_address_resolve(&address, 1, server->options.host,
                                   (uint16_t)server->options.port, error, sizeof(error));
    if (rc < 0)
        return start_error(server, rc, error);
    rc = 0;
    for (unsigned core = 0; core < server->cores && rc == 0; core++)
        rc = shoal_await(shoal_submit_to(core, shard_start, server), NULL);
    if (rc == 0)
        rc = shoal_listen_raw(&server->listening, &address, server->connections_max,
                              shoal_http_accepted, server);
    if (rc < 0) {
        shoal_http_stop(server, 0);
        return rc == -ENOMEM ? rc : start_error(server, rc, "");
    }
    rc = hook_stop(server);
    if (rc < 0) {
        shoal_http_stop(server, 0);
        return rc;
    }
    log_listening(server);
    return 0;
}

int shoal_http_serve(struct shoal_http_server *server)
{
    if (server == NULL)
        return -ENOMEM;
    int rc = shoal_http_start(server);
    if (rc < 0) {
        shoal_http_server_free(server);
        return rc;
    }
    return shoal_stop_wait();
}

/* ---- Stop ---- */

static int shard_begin_stop(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_http_shard *shard = shoal_http_shard_self(arg);
    if (shard != NULL) {
        shard->stopping = true;
        shard->listener = NULL; /* it ends before the connections do */
    }
    return 0;
}

static void retire_idle(struct shoal_http_shard *shard, bool fresh_too)
{
    SHOAL_LIST_FOREACH_SAFE (node, &shard->connections)
        shoal_http_connection_retire(SHOAL_CONTAINER_OF(node, struct shoal_http_connection, node),
                                     fresh_too);
}

static void cut_off(struct shoal_http_shard *shard)
{
    SHOAL_LIST_FOREACH_SAFE (node, &shard->connections) {
        struct shoal_http_connection *connection =
            SHOAL_CONTAINER_OF(node, struct shoal_http_connection, node);
        struct shoal_fiber *fiber = connection->fiber;
        if (fiber != NULL)
            shoal_fiber_cancel(fiber);
        shoal_http_connection_abort(connection);
    }
}

struct stop_order {
    struct shoal_http_server *server;
    uint64_t deadline_ns;
};

/* On a fiber of each core: waits for this core's connections, then frees the shard. */
static int shard_stop(void *arg, union shoal_value *out)
{
    (void)out;
    const struct stop_order *order = arg;
    struct shoal_http_shard *shard = shoal_http_shard_self(order->server);
    if (shard == NULL)
        return 0;
    shoal_fiber_shield();
    uint64_t fresh_until_ns = shoal_now_ns() + FRESH_GRACE_NS;
    /* A full turn first: requests that have arrived show as such, and not as idle connections. */
    (void)shoal_sleep_ns(STOP_LOOK_NS);
    while (shoal_list_linked(&shard->connections)) {
        if (shoal_now_ns() >= order->deadline_ns)
            cut_off(shard);
        else
            retire_idle(shard, shoal_now_ns() >= fresh_until_ns);
        (void)shoal_sleep_ns(STOP_LOOK_NS);
    }
    shoal_fiber_unshield();
    shoal_slab_deinit(&shard->connection_slab);
    shoal_slab_deinit(&shard->request_slab);
    order->server->shards[shoal_core_self->id] = NULL;
    shoal_mem_free(shard, sizeof(*shard));
    return 0;
}

/* Messages that find no memory are sent again: a stop has to end. */
static void tell(unsigned core, shoal_submit_fiber_fn *fn, void *arg)
{
    while (shoal_await(shoal_submit_fiber_to(core, fn, arg), NULL) == -ENOMEM)
        (void)shoal_sleep_ns(STOP_LOOK_NS);
}

void shoal_http_stop(struct shoal_http_server *server, uint64_t timeout_ns)
{
    struct stop_order order = {server, shoal_deadline_ns(shoal_now_ns(), timeout_ns)};
    struct shoal_future *stopped[SHOAL_CORES_MAX];
    check_mine(server, "stop");
    shoal_fiber_shield();
    for (unsigned core = 0; core < server->cores; core++)
        tell(core, shard_begin_stop, server);
    shoal_listening_stop(server->listening);
    server->listening = NULL;
    for (unsigned core = 0; core < server->cores; core++)
        stopped[core] = shoal_submit_fiber_to(core, shard_stop, &order);
    for (unsigned core = 0; core < server->cores; core++)
        if (shoal_await(stopped[core], NULL) == -ENOMEM)
            tell(core, shard_stop, &order);
    shoal_fiber_unshield();
}
