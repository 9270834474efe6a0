/*
 * The table of routes: which one fits, and which patterns are none.
 */
#include "shoal/net/http/http1_parser.h"
#include "shoal/net/http/router_impl.h"

#include "unit/harness.h"

static int add(struct shoal_router *router, const char *method, const char *pattern)
{
    /* The route is known again by its pattern. */
    struct shoal_route route = {.arg = (void *)(uintptr_t)pattern};
    return shoal_router_add(router, method, pattern, &route);
}

static void find(const struct shoal_router *router, const char *method, const char *path,
                 struct shoal_route_match *match)
{
    struct shoal_http1_head head = {.path = shoal_str_from(path),
                                    .method_name = shoal_str_from(method)};
    head.method = strcmp(method, "HEAD") == 0  ? SHOAL_HTTP_HEAD
                  : strcmp(method, "GET") == 0 ? SHOAL_HTTP_GET
                                               : SHOAL_HTTP_OTHER;
    shoal_router_find(router, &head, match);
}

static void expect_route(const struct shoal_router *router, const char *path, const char *pattern,
                         const char *params)
{
    struct shoal_route_match match;
    char text[512] = "";
    find(router, "GET", path, &match);
    if (pattern == NULL) {
        assert_null(match.node);
        assert_null(match.route);
        return;
    }
    assert_non_null(match.route);
    assert_string_equal(match.route->arg, pattern);
    for (uint32_t i = 0; i < match.param_count; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof(text) - len, "%s%.*s=%.*s", i > 0 ? " " : "",
                 (int)match.params[i].name.len, match.params[i].name.ptr,
                 (int)match.params[i].raw.len, match.params[i].raw.ptr);
    }
    assert_string_equal(text, params);
}

static void router_literal_wins_over_parameter_and_that_over_rest(void **state)
{
    (void)state;
    struct shoal_router router = {0};
    static const char *const patterns[] = {"/*",       "/:a",         "/x",       "/x/:b/end",
                                           "/x/y",     "/x/*",        "/:a/y/:c", "/",
                                           "/x/y/z/w", "/x/:b/end/*", "/a%20b",   "/p//q"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(patterns); i++)
        assert_int_equal(add(&router, "GET", patterns[i]), 0);
    expect_route(&router, "/", "/", "");
    expect_route(&router, "/x", "/x", "");
    expect_route(&router, "/%78", "/x", ""); /* compared decoded */
    expect_route(&router, "/q", "/:a", "a=q");
    expect_route(&router, "/q%2Fr", "/:a", "a=q%2Fr"); /* split first, decoded after */
    expect_route(&router, "/x/y", "/x/y", "");
    expect_route(&router, "/x/1/end", "/x/:b/end", "b=1");
    expect_route(&router, "/x/y/end", "/x/:b/end", "b=y"); /* back from /x/y */
    expect_route(&router, "/x/y/z/w", "/x/y/z/w", "");
    expect_route(&router, "/x/y/z", "/x/*", "*=y/z"); /* back from /x/y/z, /x/:b */
    expect_route(&router, "/x/1/end/2/3", "/x/:b/end/*", "b=1 *=2/3");
    expect_route(&router, "/x/1/other", "/x/*", "*=1/other"); /* b is not kept */
    expect_route(&router, "/q/y/2", "/:a/y/:c", "a=q c=2");
    expect_route(&router, "/q/n/2", "/*", "*=q/n/2");
    expect_route(&router, "/p//q", "/p//q", "");
    expect_route(&router, "/p/", "/*", "*=p/");
    expect_route(&router, "/x/", "/x/*", "*="); /* a parameter is never empty */
    expect_route(&router, "*", NULL, "");
    shoal_router_deinit(&router);
    expect_route(&router, "/", NULL, "");
}

static void router_bad_and_double_patterns_are_refused_and_leave_nothing(void **state)
{
    (void)state;
    struct shoal_router router = {0};
    static const char too_deep[] = "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/21/22/23"
                                   "/24/25/26/27/28/29/30/31/32/33";
    static const char *const bad[] = {
        "", "x", "*", "/:", "/*/x", "/a/:k/*/b", "/a/:/b", "/:1/:2/:3/:4/:5/:6/:7/:8/:9", too_deep};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(bad); i++)
        assert_int_equal(add(&router, "GET", bad[i]), -EINVAL);
    assert_null(router.root);
    assert_int_equal(add(&router, "GET", "/:1/:2/:3/:4/:5/:6/:7/*"), 0);
    assert_int_equal(add(&router, "GET", "/a/:name/b"), 0); /* :k was not left there */
    assert_int_equal(add(&router, "GET", "/a/:other/c"), -EINVAL);
    assert_int_equal(add(&router, "GET", "/a/:name/b"), -EEXIST);
    assert_int_equal(add(&router, "POST", "/a/:name/b"), 0);
    assert_int_equal(add(&router, "", "/m"), -EINVAL);
    assert_int_equal(add(&router, "GE T", "/m"), -EINVAL);
    assert_int_equal(add(&router, "GET\r\n", "/m"), -EINVAL);
    expect_route(&router, "/a/v/b", "/a/:name/b", "name=v");
    expect_route(&router, "/1/2/3/4/5/6/7/8/9", "/:1/:2/:3/:4/:5/:6/:7/*",
                 "1=1 2=2 3=3 4=4 5=5 6=6 7=7 *=8/9");
    shoal_router_deinit(&router);
}

static void router_wrong_method_names_those_that_are_allowed(void **state)
{
    (void)state;
    struct shoal_router router = {0};
    struct shoal_route_match match;
    char allow[256];
    assert_int_equal(add(&router, "GET", "/a"), 0);
    assert_int_equal(add(&router, "POST", "/a"), 0);
    assert_int_equal(add(&router, "HEAD", "/h"), 0);
    assert_int_equal(add(&router, "GET", "/h"), 0);
    find(&router, "HEAD", "/a", &match);
    assert_non_null(match.route); /* GET answers it */
    assert_string_equal(match.route->method, "GET");
    find(&router, "HEAD", "/h", &match);
    assert_string_equal(match.route->method, "HEAD");
    find(&router, "get", "/a", &match); /* methods are case-sensitive */
    assert_null(match.route);
    assert_non_null(match.node);
    shoal_router_allow(match.node, allow, sizeof(allow));
    assert_string_equal(allow, "POST, GET, HEAD");
    shoal_router_allow(match.node, allow, 6); /* too small: whole names only */
    assert_string_equal(allow, "POST");
    find(&router, "PUT", "/h", &match);
    assert_null(match.route);
    shoal_router_allow(match.node, allow, sizeof(allow));
    assert_string_equal(allow, "GET, HEAD");
    find(&router, "PUT", "/nothing", &match);
    assert_null(match.node);
    shoal_router_deinit(&router);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(router_literal_wins_over_parameter_and_that_over_rest),
        cmocka_unit_test(router_bad_and_double_patterns_are_refused_and_leave_nothing),
        cmocka_unit_test(router_wrong_method_names_those_that_are_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
