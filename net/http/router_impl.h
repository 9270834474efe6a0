/*
 * Routes: a tree of path segments, built before the server starts and read by all cores after.
 *
 *        (root)
 *        /    \ literal children, then one parameter child, then one rest child
 *     "user"  "files"
 *       |        |
 *     ":id"     "*"
 *
 * 1. A match prefers literal over parameter over rest, and goes back to the less specific where the
 *    more specific leads nowhere.
 * 2. Segments of the request are compared decoded; splitting comes before decoding.
 * 3. Patterns without parameters stand in a hash table too (as many as fit), which is asked first:
 *    by 1. a path that is equal to one of them, byte by byte, can match nothing more specific.
 */
#ifndef SHOAL_NET_HTTP_ROUTER_IMPL_H
#define SHOAL_NET_HTTP_ROUTER_IMPL_H

#include "shoal/net/http/server.h"

#define SHOAL_ROUTE_DEPTH_MAX  32
#define SHOAL_ROUTE_PARAMS_MAX 8

struct shoal_route {
    struct shoal_route *next; /* of the same pattern, another method */
    char *method;
    enum shoal_http_method known; /* the same, or SHOAL_HTTP_OTHER */
    shoal_http_handler *handler;  /* one of the two */
    shoal_http_future_handler *future_handler;
    void *arg;
};

struct shoal_route_node {
    struct shoal_route_node *sibling;
    struct shoal_route_node *literals;
    struct shoal_route_node *parameter;
    struct shoal_route_node *rest;
    struct shoal_route *routes;
    uint32_t text_len;
    char text[]; /* the literal, or the parameter's name */
};

/* A pattern of literal segments alone, found by the path as it was sent. */
struct shoal_route_exact {
    char *path; /* NULL: a free place */
    uint32_t len;
    const struct shoal_route_node *node;
};

#define SHOAL_ROUTE_EXACT_SLOTS 256 /* a power of two */
#define SHOAL_ROUTE_EXACT_MAX   192

struct shoal_router {
    struct shoal_route_node *root;
    uint32_t exact_count;
    struct shoal_route_exact exact[SHOAL_ROUTE_EXACT_SLOTS];
};

struct shoal_route_match {
    const struct shoal_route_node *node; /* of the pattern that fits; NULL: none */
    const struct shoal_route *route;     /* of the method too; NULL: 405 */
    uint32_t param_count;
    struct {
        struct shoal_str name, raw;
    } params[SHOAL_ROUTE_PARAMS_MAX];
};

/* 0, -EINVAL, -EEXIST, -ENOMEM. */
int shoal_router_add(struct shoal_router *router, const char *method, const char *pattern,
                     const struct shoal_route *route);
void shoal_router_deinit(struct shoal_router *router);

void shoal_router_find(const struct shoal_router *router, const struct shoal_http1_head *head,
                       struct shoal_route_match *out);

/* "GET, HEAD, POST": the methods of the pattern, into `out`. */
void shoal_router_allow(const struct shoal_route_node *node, char *out, size_t size);

#endif
