/*
 * The smallest server: one route, answered on every core.
 */
#include <shoal/shoal.h>

static struct shoal_http_options options;

static int hello(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    return shoal_http_reply_text(request, 200, "Hello, World!\n");
}

static int run(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = shoal_http_server_new(&options);
    shoal_http_route(server, "GET", "/", hello, NULL);
    return shoal_http_serve(server);
}

int main(int argc, char **argv)
{
    struct shoal_option table[SHOAL_HTTP_OPTION_COUNT];
    shoal_http_options_init(&options);
    shoal_http_options_table(&options, table);
    struct shoal_program program = {.name = "shoal-hello", .options = table, .run = run};
    return shoal_main(argc, argv, &program);
}
