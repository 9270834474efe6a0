/*
 * The router: see router_impl.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/mem.h"

#include "shoal/net/http/router_impl.h"
#include "shoal/net/http/uri.h"

static struct shoal_route_node *node_new(struct shoal_str text)
{
    struct shoal_route_node *node = shoal_mem_alloc_zeroed(sizeof(*node) + text.len + 1);
    if (node == NULL)
        return NULL;
    node->text_len = text.len;
    if (text.len > 0)
        memcpy(node->text, text.ptr, text.len);
    return node;
}

static bool node_is(const struct shoal_route_node *node, struct shoal_str text)
{
    return node->text_len == text.len &&
           (text.len == 0 || memcmp(node->text, text.ptr, text.len) == 0);
}

static bool is_rest(struct shoal_str segment)
{
    return segment.len == 1 && segment.ptr[0] == '*';
}

/* The child of `node` for one segment of a pattern, made if need be. 0 or -errno. */
static int child_for(struct shoal_route_node *node, struct shoal_str segment,
                     struct shoal_route_node **out)
{
    struct shoal_route_node **place = &node->literals;
    struct shoal_str text = segment;
    if (segment.len > 0 && segment.ptr[0] == ':') {
        text = shoal_str_make(segment.ptr + 1, segment.len - 1);
        place = &node->parameter;
        if (*place != NULL && !node_is(*place, text))
            return -EINVAL; /* two names for one segment */
    } else if (is_rest(segment)) {
        place = &node->rest;
    } else {
        while (*place != NULL && !node_is(*place, text))
            place = &(*place)->sibling;
    }
    if (*place == NULL)
        *place = node_new(text);
    *out = *place;
    return *place != NULL ? 0 : -ENOMEM;
}

/* Looked at as a whole first, so that a pattern that is none leaves no nodes behind. */
static bool pattern_valid(const char *pattern)
{
    struct shoal_str path = shoal_str_from(pattern);
    struct shoal_str segment;
    int depth = 0;
    int params = 0;
    if (pattern[0] != '/')
        return false;
    while (shoal_path_next(&path, &segment)) {
        bool is_param = segment.len > 0 && segment.ptr[0] == ':';
        params += is_param || is_rest(segment);
        if (++depth > SHOAL_ROUTE_DEPTH_MAX || params > SHOAL_ROUTE_PARAMS_MAX ||
            (is_param && segment.len == 1) || (is_rest(segment) && path.len > 0))
            return false;
    }
    return true;
}

static int node_for(struct shoal_router *router, const char *pattern, struct shoal_route_node **out)
{
    if (router->root == NULL)
        router->root = node_new(shoal_str_from(""));
    struct shoal_route_node *node = router->root;
    if (node == NULL)
        return -ENOMEM;
    struct shoal_str path = shoal_str_from(pattern);
    struct shoal_str segment;
    while (shoal_path_next(&path, &segment)) {
        int rc = child_for(node, segment, &node);
        if (rc < 0)
            return rc;
    }
    *out = node;
    return 0;
}

/* ---- Patterns without parameters ---- */

static uint32_t path_hash(struct shoal_str path)
{
    uint64_t first = 0;
    uint64_t last = 0;
    if (path.len >= sizeof(first)) {
        memcpy(&first, path.ptr, sizeof(first));
        memcpy(&last, path.ptr + path.len - sizeof(last), sizeof(last));
    } else {
        for (uint32_t i = 0; i < path.len; i++)
            first = first << 8 | (unsigned char)path.ptr[i];
    }
    uint64_t mixed =
        (first ^ (last * UINT64_C(0x9e3779b97f4a7c15)) ^ path.len) * UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)(mixed >> 32);
}

/* The place of `path` in the table: where it stands, or a free one. */
static uint32_t exact_place(const struct shoal_router *router, struct shoal_str path)
{
    uint32_t place = path_hash(path) % SHOAL_ROUTE_EXACT_SLOTS;
    for (;; place = (place + 1) % SHOAL_ROUTE_EXACT_SLOTS) {
        const struct shoal_route_exact *exact = &router->exact[place];
        if (exact->path == NULL ||
            (exact->len == path.len && memcmp(exact->path, path.ptr, path.len) == 0))
            return place;
    }
}

/* Enters a pattern if it has no parameter. The tree has it in any case: failing is no error. */
static void exact_add(struct shoal_router *router, const char *pattern,
                      const struct shoal_route_node *node)
{
    struct shoal_str path = shoal_str_from(pattern);
    if (strstr(pattern, "/:") != NULL || strpbrk(pattern, "%*") != NULL ||
        router->exact_count == SHOAL_ROUTE_EXACT_MAX)
        return;
    struct shoal_route_exact *exact = &router->exact[exact_place(router, path)];
    if (exact->path != NULL)
        return;
    exact->path = shoal_mem_alloc(path.len);
    if (exact->path == NULL)
        return;
    memcpy(exact->path, path.ptr, path.len);
    exact->len = path.len;
    exact->node = node;
    router->exact_count++;
}

static enum shoal_http_method method_by_name(const char *name)
{
    int method = SHOAL_HTTP_GET;
    while (method < SHOAL_HTTP_OTHER &&
           strcmp(shoal_http_method_name((enum shoal_http_method)method), name) != 0)
        method++;
    return (enum shoal_http_method)method;
}

int shoal_router_add(struct shoal_router *router, const char *method, const char *pattern,
                     const struct shoal_route *route)
{
    struct shoal_route_node *node;
    if (!pattern_valid(pattern) || !shoal_http_field_name_valid(shoal_str_from(method)))
        return -EINVAL;
    int rc = node_for(router, pattern, &node);
    if (rc < 0)
        return rc;
    for (const struct shoal_route *other = node->routes; other != NULL; other = other->next)
        if (strcmp(other->method, method) == 0)
            return -EEXIST;
    struct shoal_route *copy = shoal_mem_alloc(sizeof(*copy));
    char *name = shoal_mem_alloc(strlen(method) + 1);
    if (copy == NULL || name == NULL) {
        shoal_mem_free(copy, sizeof(*copy));
        shoal_mem_free(name, strlen(method) + 1);
        return -ENOMEM;
    }
    memcpy(name, method, strlen(method) + 1);
    *copy = *route;
    copy->method = name;
    copy->known = method_by_name(method);
    copy->next = node->routes;
    node->routes = copy;
    exact_add(router, pattern, node);
    return 0;
}

/* Bounded by SHOAL_ROUTE_DEPTH_MAX. */
static void node_free(struct shoal_route_node *node)
{
    while (node != NULL) {
        struct shoal_route_node *sibling = node->sibling;
        while (node->routes != NULL) {
            struct shoal_route *route = node->routes;
            node->routes = route->next;
            shoal_mem_free(route->method, strlen(route->method) + 1);
            shoal_mem_free(route, sizeof(*route));
        }
        node_free(node->literals);
        node_free(node->parameter);
        node_free(node->rest);
        shoal_mem_free(node, sizeof(*node) + node->text_len + 1);
        node = sibling;
    }
}

void shoal_router_deinit(struct shoal_router *router)
{
    for (size_t i = 0; i < SHOAL_ROUTE_EXACT_SLOTS; i++)
        shoal_mem_free(router->exact[i].path, router->exact[i].len);
    memset(router->exact, 0, sizeof(router->exact));
    router->exact_count = 0;
    node_free(router->root);
    router->root = NULL;
}

/* ---- Matching ---- */

/* Compares a raw segment with a literal, decoding only where there is something to decode. */
static bool segment_is(struct shoal_str raw, const struct shoal_route_node *literal)
{
    if (SHOAL_LIKELY(node_is(literal, raw)))
        return true;
    if (raw.len == 0 || memchr(raw.ptr, '%', raw.len) == NULL || raw.len > 3 * literal->text_len)
        return false;
    char decoded[256];
    int64_t len = shoal_uri_decode(raw, decoded, sizeof(decoded), 0);
    return len >= 0 && node_is(literal, shoal_str_make(decoded, (size_t)len));
}

static bool keep_param(struct shoal_route_match *match, const struct shoal_route_node *node,
                       struct shoal_str raw)
{
    if (match->param_count == SHOAL_ARRAY_SIZE(match->params))
        return false;
    match->params[match->param_count].name = shoal_str_make(node->text, node->text_len);
    match->params[match->param_count++].raw = raw;
    return true;
}

static const struct shoal_route_node *find_node(const struct shoal_route_node *node,
                                                struct shoal_str path,
                                                struct shoal_route_match *match)
{
    struct shoal_str rest = path;
    struct shoal_str segment;
    if (!shoal_path_next(&path, &segment))
        return node->routes != NULL ? node : NULL;
    for (const struct shoal_route_node *child = node->literals; child != NULL;
         child = child->sibling) {
        if (!segment_is(segment, child))
            continue;
        const struct shoal_route_node *found = find_node(child, path, match);
        if (found != NULL)
            return found;
    }
    uint32_t params_before = match->param_count;
    if (node->parameter != NULL && segment.len > 0 && keep_param(match, node->parameter, segment)) {
        const struct shoal_route_node *found = find_node(node->parameter, path, match);
        if (found != NULL)
            return found;
        match->param_count = params_before;
    }
    if (node->rest == NULL || node->rest->routes == NULL)
        return NULL;
    struct shoal_str tail = shoal_str_make(rest.ptr + 1, rest.len - 1);
    if (!keep_param(match, node->rest, tail))
        return NULL;
    match->params[match->param_count - 1].name = shoal_str_from("*");
    return node->rest;
}

static const struct shoal_route *route_of(const struct shoal_route_node *node,
                                          enum shoal_http_method method, struct shoal_str name)
{
    for (const struct shoal_route *route = node->routes; route != NULL; route = route->next)
        if (route->known == method &&
            (method != SHOAL_HTTP_OTHER || shoal_str_equal(shoal_str_from(route->method), name)))
            return route;
    return NULL;
}

void shoal_router_find(const struct shoal_router *router, const struct shoal_http1_head *head,
                       struct shoal_route_match *out)
{
    out->param_count = 0;
    out->route = NULL;
    out->node = router->exact[exact_place(router, head->path)].node;
    if (out->node == NULL && router->root != NULL)
        out->node = find_node(router->root, head->path, out);
    if (out->node == NULL)
        return;
    out->route = route_of(out->node, head->method, head->method_name);
    if (out->route == NULL && head->method == SHOAL_HTTP_HEAD)
        out->route = route_of(out->node, SHOAL_HTTP_GET, head->method_name);
}

void shoal_router_allow(const struct shoal_route_node *node, char *out, size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (const struct shoal_route *route = node->routes; route != NULL; route = route->next) {
        bool adds_head = strcmp(route->method, "GET") == 0 &&
                         route_of(node, SHOAL_HTTP_HEAD, shoal_str_from("HEAD")) == NULL;
        int n = snprintf(out + len, size - len, "%s%s%s", len > 0 ? ", " : "", route->method,
                         adds_head ? ", HEAD" : "");
        if (n < 0 || (size_t)n >= size - len) {
            out[len] = '\0'; /* no half a name */
            return;
        }
        len += (size_t)n;
    }
}
