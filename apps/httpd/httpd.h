/*
 * shoal-httpd, a demo server: what one file provides to the others.
 */
#ifndef HTTPD_H
#define HTTPD_H

#include <shoal/shoal.h>

struct httpd {
    struct shoal_http_options options;
    struct shoal_http_server *server;
    const char *root; /* --root; NULL: no files */
    int root_fd;      /* opened before the cores start; read-only after */
};

/* simple.c: answers that are ready at once, or need one wait. */
int httpd_plaintext(struct shoal_http_request *request, void *arg);
int httpd_json(struct shoal_http_request *request, void *arg);
int httpd_echo(struct shoal_http_request *request, void *arg);
int httpd_sleep(struct shoal_http_request *request, void *arg);
int httpd_greet(struct shoal_http_request *request, void *arg);

/* sum.c: a handler that is a chain of futures: parse, then validate, then respond. */
struct shoal_future *httpd_sum(struct shoal_http_request *request, void *arg);

/* cores.c: gathers what each core has served, by messages. */
int httpd_cores(struct shoal_http_request *request, void *arg);

/* files.c: files below --root. */
int httpd_files(struct shoal_http_request *request, void *arg);

/* page.c: the front page. */
int httpd_page(struct shoal_http_request *request, void *arg);

#endif
