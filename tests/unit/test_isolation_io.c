/*
 * Cores share nothing: files, directories, processes, signals, watches, streams and HTTP, used on
 * another core than they belong to, in checked builds. See isolation_check.h.
 */
/* backends: both */
#include <signal.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/directory.h"
#include "shoal/runtime/file_direct.h"
#include "shoal/runtime/file_stream.h"
#include "shoal/runtime/process.h"
#include "shoal/runtime/signal.h"
#include "shoal/runtime/watch.h"

#include "shoal/net/http/http_impl.h"
#include "shoal/net/http/request.h"
#include "shoal/net/http/response.h"

#include "unit/isolation_check.h"
#include "unit/net_check.h"

#define AN_HOUR (SHOAL_NS_PER_S * 3600)

static char bytes[64];
static const struct iovec vec = {bytes, sizeof(bytes)};

/* ---- Files ---- */

static struct shoal_file file;
static struct shoal_file_reader *reader;
static struct shoal_file_writer *writer;
static struct shoal_directory directory;
static struct shoal_directory_entry entry;
static struct shoal_file_stat facts;
static const struct shoal_file_alignment need = {.memory_bytes = 512, .offset_bytes = 512};
static void *buffer;
static const void *shown;

static void make_file(void)
{
    SHOAL_EXPECT_INT(shoal_file_adopt(&file, memfd_create("test", MFD_CLOEXEC)), 0);
    SHOAL_EXPECT_INT(shoal_file_write_all(&file, "some text", 9, 0), 0);
}

static void make_reader(void)
{
    make_file();
    SHOAL_EXPECT_INT(shoal_file_reader_new(&reader, &file, NULL), 0);
}

static void make_writer(void)
{
    make_file();
    SHOAL_EXPECT_INT(shoal_file_writer_new(&writer, &file, NULL), 0);
}

static void make_directory(void)
{
    SHOAL_EXPECT_INT(shoal_directory_open(&directory, AT_FDCWD, "/", 0), 0);
}

static void make_buffer(void)
{
    buffer = shoal_file_buffer_new(&need, 512);
}

#define A_FILE "use of a file (descriptor "

#define FILES(X)                                                                                   \
    X(read, A_FILE, file, (void)shoal_file_read(&file, bytes, 1, 0))                               \
    X(read_exact, A_FILE, file, (void)shoal_file_read_exact(&file, bytes, 1, 0))                   \
    X(readv, A_FILE, file, (void)shoal_file_readv(&file, &vec, 1, 0))                              \
    X(write, A_FILE, file, (void)shoal_file_write(&file, bytes, 1, 0))                             \
    X(write_all, A_FILE, file, (void)shoal_file_write_all(&file, bytes, 1, 0))                     \
    X(writev, A_FILE, file, (void)shoal_file_writev(&file, &vec, 1, 0))                            \
    X(append, A_FILE, file, (void)shoal_file_append(&file, bytes, 1))                              \
    X(sync, A_FILE, file, (void)shoal_file_sync(&file))                                            \
    X(sync_data, A_FILE, file, (void)shoal_file_sync_data(&file))                                  \
    X(writeback, A_FILE, file, (void)shoal_file_writeback(&file, 0, 1))                            \
    X(truncate, A_FILE, file, (void)shoal_file_truncate(&file, 3))                                 \
    X(allocate, A_FILE, file, (void)shoal_file_allocate(&file, 0, 0, 10))                          \
    X(stat, A_FILE, file, (void)shoal_file_stat(&file, &facts))                                    \
    X(close, A_FILE, file, (void)shoal_file_close(&file))                                          \
    X(buffer_free, "free of memory 0x", buffer, shoal_file_buffer_free(&need, buffer, 512))        \
    X(reader_new, A_FILE, file, (void)shoal_file_reader_new(&reader, &file, NULL))                 \
    X(reader_read, A_FILE, reader, (void)shoal_file_reader_read(reader, bytes, 1))                 \
    X(reader_exact, A_FILE, reader, (void)shoal_file_reader_read_exact(reader, bytes, 1))          \
    X(reader_peek, A_FILE, reader, (void)shoal_file_reader_peek(reader, &shown))                   \
    X(reader_consume, A_FILE, reader, shoal_file_reader_consume(reader, 0))                        \
    X(reader_tell, A_FILE, reader, (void)shoal_file_reader_tell(reader))                           \
    X(reader_seek, A_FILE, reader, (void)shoal_file_reader_seek(reader, 0))                        \
    X(reader_free, A_FILE, reader, shoal_file_reader_free(reader))                                 \
    X(writer_new, A_FILE, file, (void)shoal_file_writer_new(&writer, &file, NULL))                 \
    X(writer_write, A_FILE, writer, (void)shoal_file_writer_write(writer, bytes, 1))               \
    X(writer_flush, A_FILE, writer, (void)shoal_file_writer_flush(writer))                         \
    X(writer_sync, A_FILE, writer, (void)shoal_file_writer_sync(writer))                           \
    X(writer_tell, A_FILE, writer, (void)shoal_file_writer_tell(writer))                           \
    X(writer_seek, A_FILE, writer, (void)shoal_file_writer_seek(writer, 0))                        \
    X(writer_written, A_FILE, writer, (void)shoal_file_writer_written(writer))                     \
    X(writer_discard, A_FILE, writer, shoal_file_writer_discard(writer))                           \
    X(writer_close, A_FILE, writer, (void)shoal_file_writer_close(writer))                         \
    X(directory_next, A_FILE, directory, (void)shoal_directory_next(&directory, &entry))           \
    X(directory_rewind, A_FILE, directory, shoal_directory_rewind(&directory))                     \
    X(directory_close, A_FILE, directory, shoal_directory_close(&directory))

ISOLATION_TABLE(files, FILES);

/* ---- Processes, signals, watches ---- */

static struct shoal_process *process;
static struct shoal_process_pipe *process_pipe;
static struct shoal_process_status status;
static struct shoal_signal *subscription;
static struct shoal_watch *watch;
static struct shoal_watch_event event;

static void make_process(void)
{
    static const char *const argv[] = {"/bin/cat", NULL};
    const struct shoal_process_how how = {.argv = argv,
                                          .group = SHOAL_PROCESS_GROUP_NEW,
                                          .end_with_parent = true,
                                          .in.kind = SHOAL_PROCESS_PIPE,
                                          .out.kind = SHOAL_PROCESS_PIPE};
    SHOAL_EXPECT_INT(shoal_process_spawn(&process, &how), 0);
    process_pipe = shoal_process_stdin(process);
}

static void make_signal(void)
{
    subscription = shoal_mem_alloc(sizeof(*subscription)); /* at home the last one is in use */
    SHOAL_EXPECT_INT(shoal_signal_subscribe(subscription, SIGUSR2), 0);
}

static void make_watch(void)
{
    SHOAL_EXPECT_INT(shoal_watch_new(&watch), 0);
}

#define SYSTEM(X)                                                                                  \
    X(process_id, "id of process ", process, (void)shoal_process_id(process))                      \
    X(process_status, "status of process ", process, (void)shoal_process_status(process, &status)) \
    X(process_wait, "wait of process ", process, (void)shoal_process_wait(process, &status, 0))    \
    X(process_future, "wait of process ", process,                                                 \
      shoal_discard(shoal_process_wait_future(process)))                                           \
    X(process_signal, "signal of process ", process, (void)shoal_process_signal(process, SIGTERM)) \
    X(process_group, "signal of process ", process,                                                \
      (void)shoal_process_signal_group(process, SIGTERM))                                          \
    X(process_terminate, "signal of process ", process,                                            \
      (void)shoal_process_terminate(process, AN_HOUR, &status))                                    \
    X(process_stdin, "stdin of process ", process, (void)shoal_process_stdin(process))             \
    X(process_stdout, "stdout of process ", process, (void)shoal_process_stdout(process))          \
    X(process_stderr, "stderr of process ", process, (void)shoal_process_stderr(process))          \
    X(process_free, "free of process ", process, shoal_process_free(process))                      \
    X(pipe_write, "write of a pipe of a process (0x", process,                                     \
      (void)shoal_process_pipe_write(process_pipe, bytes, 1, NULL))                                \
    X(pipe_read, "read of a pipe of a process (0x", process,                                       \
      (void)shoal_process_pipe_read(process_pipe, bytes, 0))                                       \
    X(pipe_close, "close of a pipe of a process (0x", process,                                     \
      shoal_process_pipe_close(process_pipe))                                                      \
    X(signal_next, "wait of signal ", signal, (void)shoal_signal_next(subscription, 0))            \
    X(signal_future, "wait of signal ", signal,                                                    \
      shoal_discard(shoal_signal_next_future(subscription)))                                       \
    X(signal_unsubscribe, "unsubscribe of signal ", signal,                                        \
      shoal_signal_unsubscribe(subscription))                                                      \
    X(watch_add, "add of watch 0x", watch, (void)shoal_watch_add(watch, "/", NULL))                \
    X(watch_remove, "remove of watch 0x", watch, (void)shoal_watch_remove(watch, 1))               \
    X(watch_next, "wait of watch 0x", watch, (void)shoal_watch_next(watch, &event, 0))             \
    X(watch_future, "wait of watch 0x", watch, (void)shoal_watch_next_future(watch))               \
    X(watch_free, "free of watch 0x", watch, shoal_watch_free(watch))

ISOLATION_TABLE(systems, SYSTEM);

/* ---- Streams ---- */

static struct shoal_stream *stream;
static struct shoal_slice *slice;

/* With something to read. */
static void make_stream(void)
{
    int raw;
    net_half(&stream, &raw);
    SHOAL_EXPECT_INT((int)write(raw, "text", 4), 4);
}

static void make_slice(void)
{
    slice = shoal_slice_new(10, "test");
    slice->len = 10;
}

static void write_slice_of_mine(void)
{
    make_slice();
    (void)shoal_stream_write_slice(stream, slice);
}

/* A stream of this core gets a slice of another. */
static void write_slice_of_theirs(void)
{
    struct shoal_slice *theirs = slice;
    make_stream();
    (void)shoal_stream_write_slice(stream, theirs);
}

#define STREAMS(X)                                                                                 \
    X(stream_read, "read of stream 0x", stream, (void)shoal_stream_read(stream, &slice))           \
    X(stream_write, "write of stream 0x", stream, (void)shoal_stream_write(stream, bytes, 1))      \
    X(stream_write_slice, "write of stream 0x", stream, write_slice_of_mine())                     \
    X(stream_their_slice, "write of slice 0x", slice, write_slice_of_theirs())                     \
    X(stream_drain, "drain of stream 0x", stream, (void)shoal_stream_drain(stream))                \
    X(stream_flush, "flush of stream 0x", stream, shoal_stream_flush(stream))                      \
    X(stream_shutdown, "shutdown of stream 0x", stream, (void)shoal_stream_shutdown(stream))       \
    X(stream_close, "close of stream 0x", stream, shoal_stream_close(stream))

ISOLATION_TABLE(streams, STREAMS);

/* ---- HTTP ---- */

static struct shoal_http_connection connection;
static struct shoal_http_request *request;
static struct shoal_http_server *server;
static struct shoal_str piece;

/* No more of one than what the check looks at: at home, the server's tests make whole ones. */
static void make_request(void)
{
    request = shoal_mem_alloc_zeroed(sizeof(*request));
    request->connection = &connection;
    connection.stream.core = (uint16_t)shoal_core_id();
}

static void make_server(void)
{
    server = shoal_http_server_new(NULL);
}

static int handle(struct shoal_http_request *handled, void *arg)
{
    (void)arg;
    return shoal_http_reply_text(handled, 200, "");
}

static struct shoal_future *handle_later(struct shoal_http_request *handled, void *arg)
{
    (void)handled;
    (void)arg;
    return shoal_future_ready(NULL);
}

#define HTTP(X)                                                                                    \
    X(http_head, "head of HTTP request 0x", request, (void)shoal_http_head(request))               \
    X(http_header, "header of HTTP request 0x", request, (void)shoal_http_header(request, "Host")) \
    X(http_param, "param of HTTP request 0x", request, (void)shoal_http_param(request, "id"))      \
    X(http_length, "body_length of HTTP request 0x", request,                                      \
      (void)shoal_http_body_length(request))                                                       \
    X(http_body_read, "body_read of HTTP request 0x", request,                                     \
      (void)shoal_http_body_read(request, &piece))                                                 \
    X(http_body_all, "body_length of HTTP request 0x", request,                                    \
      (void)shoal_http_body_read_all(request, 1, &piece))                                          \
    X(http_set_header, "set_header of HTTP request 0x", request,                                   \
      (void)shoal_http_set_header(request, "X", "y"))                                              \
    X(http_begin, "begin of HTTP request 0x", request,                                             \
      (void)shoal_http_begin(request, 200, NULL, 0))                                               \
    X(http_reply, "begin of HTTP request 0x", request,                                             \
      (void)shoal_http_reply(request, 200, NULL, NULL, 0))                                         \
    X(http_write, "write of HTTP request 0x", request, (void)shoal_http_write(request, bytes, 1))  \
    X(http_write_slice, "write_slice of HTTP request 0x", request,                                 \
      (void)shoal_http_write_slice(request, NULL))                                                 \
    X(http_end, "end of HTTP request 0x", request, (void)shoal_http_end(request))                  \
    X(http_route, "route of HTTP server 0x", server,                                               \
      (void)shoal_http_route(server, "GET", "/", handle, NULL))                                    \
    X(http_route_future, "route of HTTP server 0x", server,                                        \
      (void)shoal_http_route_future(server, "GET", "/", handle_later, NULL))                       \
    X(http_start, "start of HTTP server 0x", server, (void)shoal_http_start(server))               \
    X(http_serve, "start of HTTP server 0x", server, (void)shoal_http_serve(server))               \
    X(http_stop, "stop of HTTP server 0x", server, shoal_http_stop(server, 0))                     \
    X(http_free, "free of HTTP server 0x", server, shoal_http_server_free(server))

ISOLATION_TABLE(http, HTTP);

static struct shoal_http_stats stats;

#define FOREIGN(X)                                                                                 \
    X(foreign_read, A_FILE, file, (void)shoal_file_close(&file))                                   \
    X(foreign_stream, "write of stream 0x", stream, (void)shoal_stream_write(stream, bytes, 1))    \
    X(foreign_process, "wait of process ", process, (void)shoal_process_wait(process, NULL, 0))    \
    X(foreign_signal, "wait of signal ", signal, (void)shoal_signal_next(subscription, 0))         \
    X(foreign_watch, "wait of watch 0x", watch, (void)shoal_watch_next(watch, &event, 0))          \
    X(http_stats, "statistics of an HTTP server", server, shoal_http_stats(server, &stats))

ISOLATION_TABLE(foreigners, FOREIGN);

/* ---- */

static void isolation_io_at_home_nothing_is_said(void **state)
{
    (void)state;
    isolation_expect_silence(ISOLATION_ARGS(files));
    isolation_expect_silence(ISOLATION_ARGS(systems));
    isolation_expect_silence(ISOLATION_ARGS(streams));
}

#if SHOAL_OWNER_CHECKED
static void isolation_file_of_another_core_aborts(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(files));
}

static void isolation_process_signal_watch_of_another_core_abort(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(systems));
}

static void isolation_stream_of_another_core_aborts(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(streams));
}

static void isolation_http_of_another_core_aborts(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(http));
}

static void isolation_io_on_a_thread_without_core_aborts(void **state)
{
    (void)state;
    isolation_expect_foreign_aborts(ISOLATION_ARGS(foreigners));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isolation_io_at_home_nothing_is_said),
#if SHOAL_OWNER_CHECKED
        cmocka_unit_test(isolation_file_of_another_core_aborts),
        cmocka_unit_test(isolation_process_signal_watch_of_another_core_abort),
        cmocka_unit_test(isolation_stream_of_another_core_aborts),
        cmocka_unit_test(isolation_http_of_another_core_aborts),
        cmocka_unit_test(isolation_io_on_a_thread_without_core_aborts),
#endif
    };
    (void)http;
    (void)foreigners;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
