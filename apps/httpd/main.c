/*
 * shoal-httpd: a server on every core that shows what Shoal does, one route a feature.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <fcntl.h>

#include "httpd.h"

static int add_routes(struct httpd *httpd)
{
    struct shoal_http_server *server = httpd->server;
    const struct {
        const char *method;
        const char *pattern;
        shoal_http_handler *handler;
    } routes[] = {
        {"GET", "/", httpd_page},
        {"GET", "/plaintext", httpd_plaintext},
        {"GET", "/json", httpd_json},
        {"POST", "/echo", httpd_echo},
        {"PUT", "/echo", httpd_echo},
        {"GET", "/sleep", httpd_sleep},
        {"GET", "/greet/:name", httpd_greet},
        {"GET", "/cores", httpd_cores},
        {"GET", "/files/*", httpd_files},
    };
    int rc = shoal_http_route_future(server, "GET", "/sum", httpd_sum, httpd);
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]) && rc == 0; i++)
        rc =
            shoal_http_route(server, routes[i].method, routes[i].pattern, routes[i].handler, httpd);
    return rc;
}

static int run(void *arg)
{
    struct httpd *httpd = arg;
    if (httpd->root != NULL) {
        httpd->root_fd = open(httpd->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (httpd->root_fd < 0)
            return shoal_config_error("--root: \"%s\": %s (allowed: a readable folder)",
                                      httpd->root, strerror(errno));
    }
    httpd->server = shoal_http_server_new(&httpd->options);
    if (httpd->server == NULL)
        return -ENOMEM;
    int rc = add_routes(httpd);
    if (rc < 0) {
        shoal_http_server_free(httpd->server);
        return rc;
    }
    return shoal_http_serve(httpd->server);
}

int main(int argc, char **argv)
{
    struct httpd httpd = {.root_fd = -1};
    struct shoal_option table[SHOAL_HTTP_OPTION_COUNT + 1] = {
        {.name = "root",
         .type = SHOAL_OPTION_STRING,
         .target = (void *)&httpd.root,
         .value_name = "DIR",
         .help = "Folder to serve under /files/; without it there are no files."},
    };
    shoal_http_options_init(&httpd.options);
    httpd.options.body_bytes_max = UINT64_C(1) << 30;
    shoal_http_options_table(&httpd.options, table + 1);
    struct shoal_program program = {
        .name = "shoal-httpd",
        .about = "A demo HTTP server on every core.",
        .options = table,
        .run = run,
        .arg = &httpd,
    };
    return shoal_main(argc, argv, &program);
}
