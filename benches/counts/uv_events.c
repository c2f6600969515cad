/* uv_events CONNECTIONS READ_TIMEOUT_MS - libuv: one loop, a handle for each connection */
#define _GNU_SOURCE
#include "events.h"
#include "raw.h"
#include <string.h>
#include <uv.h>

/* The bytes that the kernel did not accept immediately. */
struct rest {
    uv_write_t request;
    char data[SIZE];
};

static long left;
static uv_tcp_t listener;

static void check(int status, const char *what)
{
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
    if (--left == 0)
        uv_close((uv_handle_t *)&listener, NULL);
}

static void on_written(uv_write_t *request, int status)
{
    uv_stream_t *to = request->handle;

    check(status, "write");
    free(request);
    /* The end of the stream was read, and this was the last reply. */
    if (!uv_is_active((uv_handle_t *)to) && !uv_is_closing((uv_handle_t *)to) && uv_stream_get_write_queue_size(to) == 0)
        uv_close((uv_handle_t *)to, on_closed);
}

static void send_all(uv_stream_t *to, const char *data, size_t len)
{
    uv_buf_t buf = uv_buf_init((char *)data, (unsigned)len);
    int sent = uv_try_write(to, &buf, 1);

    if (sent == (int)len)
        return;
    if (sent == UV_EAGAIN)
        sent = 0;
    check(sent, "try_write");

    struct rest *rest = malloc(sizeof *rest);
    must(rest != NULL, "malloc");
    buf = uv_buf_init(rest->data, (unsigned)(len - (size_t)sent));
    memcpy(buf.base, data + sent, buf.len);
    check(uv_write(&rest->request, to, &buf, 1, on_written), "write");
}

static void send_to(uv_handle_t *handle, void *message)
{
    const uv_buf_t *buf = message;

    if (handle != (uv_handle_t *)&listener && !uv_is_closing(handle))
        send_all((uv_stream_t *)handle, buf->base, buf->len);
}

/* One buffer for all connections, because each read is answered at once. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char room[SIZE];

    (void)handle, (void)suggested;
    *buf = uv_buf_init(room, sizeof room);
}

static void on_read(uv_stream_t *from, ssize_t got, const uv_buf_t *buf)
{
    if (got == UV_EOF) {
        /* Otherwise the last written reply closes the connection. */
        if (uv_stream_get_write_queue_size(from) == 0)
            uv_close((uv_handle_t *)from, on_closed);
        return;
    }
    check((int)got, "read");
    if (got > 0 && buf->base[0] == BROADCAST) {
        uv_buf_t message = uv_buf_init(buf->base, (unsigned)got);

        uv_walk(from->loop, send_to, &message);
    } else if (got > 0) {
        send_all(from, buf->base, (size_t)got);
    }
}

static void on_connection(uv_stream_t *server, int status)
{
    uv_tcp_t *client = malloc(sizeof *client);

    must(client != NULL, "malloc");
    check(status, "connection");
    check(uv_tcp_init(server->loop, client), "tcp_init");
    check(uv_accept(server, (uv_stream_t *)client), "accept");
    check(uv_read_start((uv_stream_t *)client, on_alloc, on_read), "read_start");
}

int main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();

    must(argc == 3, "usage: uv_events CONNECTIONS READ_TIMEOUT_MS");
    left = strtol(argv[1], NULL, 10);
    alarm(GIVE_UP_AFTER_S);
    raise_descriptor_limit();
    check(uv_tcp_init(loop, &listener), "tcp_init");
    check(uv_tcp_open(&listener, listen_loopback()), "open");
    check(uv_listen((uv_stream_t *)&listener, 1024, on_connection), "listen");
    check(uv_run(loop, UV_RUN_DEFAULT), "run");
    return 0;
}
