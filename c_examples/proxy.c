/*
 * proxy.c - passes connections on to another server, on one thread
 *
 *     proxy LISTEN UPSTREAM
 *     proxy '*:7000' unix:/run/service
 *
 * Listens on LISTEN (127.0.0.1:0 is any free port) and prints where. For each
 * client it connects to UPSTREAM, and passes on the bytes that either side
 * sends, with back-pressure, each direction with its own end of stream.
 * SIGINT (Ctrl-C) or SIGTERM stops it: open connections have five seconds to
 * end. Exit status: 0 stopped by a signal, 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct proxy {
    keepsock_service *service;
    const char *upstream;
};

/* A client's connection and the upstream connection made for it. Both have the
 * pair as their user pointer. All callbacks run on one thread, because
 * keepsock_serve_options_set_threads() is not called, so no lock is needed. */
struct pair {
    keepsock_conn client, upstream; /* id 0: not yet connected, or closed */
    int finished; /* directions that have reached end of stream */
    int owners; /* the client; the upstream, or the connect that leads to it */
};

/* A signal handler has no user pointer, so the token is global. */
static keepsock_cancel_token *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_token_fire(stop);
}

static void release(struct pair *pair)
{
    if (--pair->owners == 0)
        free(pair);
}

/* The other connection of the pair. If it is not open, its id is 0 or stale:
 * calls on it return an error and do nothing. */
static keepsock_conn other_of(keepsock_conn one)
{
    struct pair *pair = keepsock_conn_user(one);

    return one.id == pair->client.id ? pair->upstream : pair->client;
}

/* Resets the client, which can distinguish a reset from an empty answer. */
static void on_connect_failed(const keepsock_error *error, void *conn_user, void *user)
{
    struct pair *pair = conn_user;

    (void)user;
    fprintf(stderr, "proxy: %s\n", keepsock_error_message(error));
    keepsock_conn_abort(pair->client, NULL);
    release(pair);
}

static void on_open(keepsock_conn conn, void *user)
{
    const struct proxy *proxy = user;
    struct pair *pair = keepsock_conn_user(conn);
    keepsock_error *error = NULL;

    if (pair != NULL) { /* the one that was connected for this pair */
        pair->upstream = conn;
        if (pair->client.id != 0)
            keepsock_conn_resume(pair->client, NULL);
        else /* the client has closed in the meantime */
            keepsock_conn_abort(conn, NULL);
        return;
    }

    /* Read nothing from the client until the upstream is connected. */
    keepsock_conn_pause(conn, NULL);
    pair = calloc(1, sizeof *pair);
    if (pair == NULL) {
        keepsock_conn_abort(conn, NULL);
        return;
    }
    pair->client = conn;
    pair->owners = 2;
    keepsock_conn_set_user(conn, pair, NULL);
    if (keepsock_service_connect(proxy->service, proxy->upstream, NULL, pair, &error) != KEEPSOCK_OK)
        on_connect_failed(error, pair, user);
    keepsock_error_free(error);
}

/* Bytes that the other side does not accept immediately are queued. Stop
 * reading until its queue is empty. If the send fails, on_close follows. */
static void on_data(keepsock_conn from, const void *buf, size_t len, void *user)
{
    keepsock_conn to = other_of(from);

    (void)user;
    keepsock_conn_send(to, buf, len, NULL);
    if (keepsock_conn_queued(to) > 0)
        keepsock_conn_pause(from, NULL);
}

static void on_writable(keepsock_conn to, void *user)
{
    (void)user;
    keepsock_conn_resume(other_of(to), NULL);
}

/* Passes the end of one direction on, after its data. The other direction
 * continues until it ends as well. */
static void on_eof(keepsock_conn from, void *user)
{
    struct pair *pair = keepsock_conn_user(from);

    (void)user;
    keepsock_conn_shutdown_write(other_of(from), NULL);
    if (++pair->finished == 2) {
        keepsock_conn_close(pair->client, NULL);
        keepsock_conn_close(pair->upstream, NULL);
    }
}

/* Open connections may end by themselves until the deadline of the drain, when
 * the library resets the rest. (Without this callback it would close each.) */
static void on_drain(keepsock_conn conn, void *user)
{
    (void)conn;
    (void)user;
}

static void on_close(keepsock_conn conn, int32_t reason, void *user)
{
    struct pair *pair = keepsock_conn_user(conn);

    (void)reason;
    (void)user;
    if (pair == NULL) /* on_open had no memory for it */
        return;
    /* Not closed in order: reset the other side, so that its peer does not
     * take the data received so far for all of it. */
    if (pair->finished < 2)
        keepsock_conn_abort(other_of(conn), NULL);
    if (conn.id == pair->client.id)
        pair->client.id = 0;
    else
        pair->upstream.id = 0;
    release(pair);
}

int main(int argc, char **argv)
{
    const keepsock_callbacks callbacks = {
        .size = sizeof callbacks, .on_open = on_open, .on_data = on_data, .on_writable = on_writable,
        .on_eof = on_eof, .on_drain = on_drain, .on_close = on_close, .on_connect_failed = on_connect_failed
    };
    struct proxy proxy = { NULL, argc == 3 ? argv[2] : NULL };
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    uint32_t completed, reset;
    int exit_status = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: proxy LISTEN UPSTREAM\n");
        return 2;
    }

    if (keepsock_cancel_token_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argv[1], options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve_events(server, NULL, &callbacks, &proxy, &proxy.service, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(where);
    fflush(stdout);

    if (keepsock_service_wait_stopped(proxy.service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_service_drain(proxy.service, 5000, &completed, &reset, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " completed, %" PRIu32 " reset\n", completed, reset);
    exit_status = 0;

done:
    keepsock_error_print("proxy", &error);
    keepsock_service_free(proxy.service);
    keepsock_server_free(server);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not use a freed token */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_token_free(stop);
    return exit_status;
}
