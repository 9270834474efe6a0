/*
 * /files/...: regular files below --root. The kernel confines the path (openat2, RESOLVE_BENEATH):
 * no `..` and no link leads out, whatever happens to the folder meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "httpd.h"

#define PIECE_BYTES    65536u
#define PATH_BYTES_MAX 4096

static const char *type_of(const char *path)
{
    static const struct {
        const char *ending;
        const char *type;
    } types[] = {
        {".html", "text/html; charset=utf-8"},
        {".htm", "text/html; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".mjs", "text/javascript; charset=utf-8"},
        {".json", "application/json"},
        {".txt", "text/plain; charset=utf-8"},
        {".md", "text/markdown; charset=utf-8"},
        {".xml", "application/xml"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".jpeg", "image/jpeg"},
        {".gif", "image/gif"},
        {".webp", "image/webp"},
        {".ico", "image/vnd.microsoft.icon"},
        {".pdf", "application/pdf"},
        {".wasm", "application/wasm"},
        {".woff2", "font/woff2"},
    };
    const char *dot = strrchr(path, '.');
    if (dot != NULL && strchr(dot, '/') == NULL)
        for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
            if (strcmp(dot, types[i].ending) == 0)
                return types[i].type;
    return "application/octet-stream";
}

static int reply_failure(struct shoal_http_request *request, int code)
{
    switch (code) {
    case -ENOENT:
    case -ENOTDIR:
    case -ENAMETOOLONG:
    case -ENXIO:
        return shoal_http_reply_text(request, 404, "no such file\n");
    case -EACCES:
    case -EPERM:
    case -EXDEV: /* leads out of the root */
    case -ELOOP:
        return shoal_http_reply_text(request, 403, "not allowed\n");
    case -EMFILE:
    case -ENFILE:
        return shoal_http_reply_text(request, 503, "too many files are open\n");
    default:
        return code;
    }
}

/* Streams the file in pieces; the next is read while the one before is being sent. */
static int send_file(struct shoal_http_request *request, struct shoal_file *file, uint64_t size)
{
    uint64_t offset = 0;
    while (offset < size) {
        struct shoal_slice *piece = shoal_slice_new(PIECE_BYTES, "httpd file");
        if (piece == NULL)
            return -ENOMEM;
        uint64_t left = size - offset;
        int n = shoal_file_read(file, piece->data, left < PIECE_BYTES ? left : PIECE_BYTES, offset);
        if (n <= 0) {
            shoal_slice_free(piece);
            return n < 0 ? n : -EIO; /* it has shrunk: the promised length cannot be kept */
        }
        piece->len = (uint32_t)n;
        offset += (uint64_t)n;
        int rc = shoal_http_write_slice(request, piece);
        if (rc < 0)
            return rc;
    }
    return shoal_http_end(request);
}

static int reply_file(struct shoal_http_request *request, struct shoal_file *file, const char *path)
{
    struct shoal_file_stat stat;
    int rc = shoal_file_stat(file, &stat);
    if (rc < 0)
        return rc;
    if (!S_ISREG(stat.mode))
        return shoal_http_reply_text(request, S_ISDIR(stat.mode) ? 403 : 404,
                                     "not a regular file\n");
    rc = shoal_http_begin(request, 200, type_of(path), stat.size_bytes);
    if (rc < 0)
        return rc;
    if (shoal_http_head(request)->method == SHOAL_HTTP_HEAD)
        return shoal_http_end(request);
    return send_file(request, file, stat.size_bytes);
}

int httpd_files(struct shoal_http_request *request, void *arg)
{
    const struct httpd *httpd = arg;
    struct shoal_str name = shoal_http_param(request, "*");
    char path[PATH_BYTES_MAX];
    if (httpd->root_fd < 0)
        return shoal_http_reply_text(request, 404, "no files are served (--root is not given)\n");
    if (name.len >= sizeof(path))
        return reply_failure(request, -ENAMETOOLONG);
    memcpy(path, name.ptr, name.len);
    path[name.len] = '\0';
    if (name.len == 0 || path[name.len - 1] == '/')
        return shoal_http_reply_text(request, 403, "folders are not listed\n");
    struct shoal_file file;
    const struct shoal_file_how how = {.flags = O_RDONLY, .resolve = SHOAL_FILE_BENEATH};
    int rc = shoal_file_open(&file, httpd->root_fd, path, &how);
    if (rc < 0)
        return reply_failure(request, rc);
    rc = reply_file(request, &file, path);
    shoal_file_close(&file);
    return rc;
}
