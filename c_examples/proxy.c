/*
 * proxy.c - passes connections on to another server, on one thread
 *
 *     proxy LISTEN UPSTREAM
 *     proxy '*:7000' unix:/run/service
 *
 * Listens on LISTEN (127.0.0.1:0 is any free port) and prints where. For each
 * client it connects to UPSTREAM, and passes on what either side sends, byte
 * for byte, no faster than the other side takes it, the end of each direction
 * by itself. Ctrl-C or SIGTERM ends it: it gives the connections that are left
 * five seconds. Exit status: 0 ended as asked, 1 failed, 2 wrong arguments.
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

/* A client's connection and the one that was made for it: the data of both.
 * All callbacks run on one thread, as they do unless
 * keepsock_serve_options_set_threads() asks for more, so there are no locks. */
struct pair {
    keepsock_connection *client, *upstream; /* NULL: not yet, or no more */
    int finished; /* directions that have ended */
    int owners; /* the client; the upstream, or the connect that leads to it */
};

/* A signal handler has no argument of ours, so the token is global. */
static keepsock_cancel *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_fire(stop);
}

static void release(struct pair *pair)
{
    if (--pair->owners == 0)
        free(pair);
}

/* NULL if there is none, which the functions below leave alone. */
static keepsock_connection *other_of(keepsock_connection *one)
{
    struct pair *pair = keepsock_connection_data(one);

    return one == pair->client ? pair->upstream : pair->client;
}

/* A client that learns of this by a reset can tell it from an empty answer. */
static void on_connect_failed(const keepsock_error *error, void *data, void *user)
{
    struct pair *pair = data;

    (void)user;
    fprintf(stderr, "proxy: %s\n", keepsock_error_message(error));
    keepsock_connection_abort(pair->client);
    release(pair);
}

static void on_open(keepsock_connection *connection, void *user)
{
    const struct proxy *proxy = user;
    struct pair *pair = keepsock_connection_data(connection);
    keepsock_error *error = NULL;

    if (pair != NULL) { /* the one that was connected for this pair */
        pair->upstream = connection;
        if (pair->client != NULL)
            keepsock_connection_resume(pair->client);
        else /* it has gone meanwhile */
            keepsock_connection_abort(connection);
        return;
    }

    /* What the client sends stays with it until there is somebody to have it. */
    keepsock_connection_pause(connection);
    pair = calloc(1, sizeof *pair);
    if (pair == NULL) {
        keepsock_connection_abort(connection);
        return;
    }
    pair->client = connection;
    pair->owners = 2;
    keepsock_connection_set_data(connection, pair);
    if (keepsock_service_connect(proxy->service, proxy->upstream, NULL, pair, &error) != KEEPSOCK_OK)
        on_connect_failed(error, pair, user);
    keepsock_error_free(error);
}

/* What the other side does not take at once waits here, so no more is read
 * until it is gone. A send that fails ends the other side: see on_close. */
static void on_data(keepsock_connection *from, const void *data, size_t len, void *user)
{
    keepsock_connection *to = other_of(from);

    (void)user;
    keepsock_connection_send(to, data, len, NULL);
    if (keepsock_connection_queued(to) > 0)
        keepsock_connection_pause(from);
}

static void on_writable(keepsock_connection *to, void *user)
{
    (void)user;
    keepsock_connection_resume(other_of(to));
}

/* The end of one direction is passed on like data, and after it; the other
 * direction goes on until it ends as well. */
static void on_finished(keepsock_connection *from, void *user)
{
    struct pair *pair = keepsock_connection_data(from);

    (void)user;
    keepsock_connection_shutdown_write(other_of(from));
    if (++pair->finished == 2) {
        keepsock_connection_close(pair->client);
        keepsock_connection_close(pair->upstream);
    }
}

/* Connections under way may come to their end by themselves, and are reset
 * when the time is over. (Without a callback each would be closed.) */
static void on_drain(keepsock_connection *connection, void *user)
{
    (void)connection;
    (void)user;
}

static void on_close(keepsock_connection *connection, int32_t end, void *user)
{
    struct pair *pair = keepsock_connection_data(connection);

    (void)end;
    (void)user;
    if (pair == NULL) /* there was no memory for it */
        return;
    /* It broke off: the other side must not take what it has got for all. */
    if (pair->finished < 2)
        keepsock_connection_abort(other_of(connection));
    if (connection == pair->client)
        pair->client = NULL;
    else
        pair->upstream = NULL;
    release(pair);
}

int main(int argc, char **argv)
{
    const keepsock_callbacks callbacks = {
        .size = sizeof callbacks, .open = on_open, .data = on_data, .writable = on_writable,
        .finished = on_finished, .drain = on_drain, .close = on_close, .connect_failed = on_connect_failed
    };
    struct proxy proxy = { NULL, argc == 3 ? argv[2] : NULL };
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_error *error = NULL;
    uint32_t finished, cut;
    int exit_status = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: proxy LISTEN UPSTREAM\n");
        return 2;
    }

    if (keepsock_cancel_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argv[1], options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve_events(server, NULL, &callbacks, &proxy, &proxy.service, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(keepsock_server_endpoint(server));
    fflush(stdout);

    if (keepsock_service_wait(proxy.service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_service_drain(proxy.service, 5000, &finished, &cut, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " finished, %" PRIu32 " cut\n", finished, cut);
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "proxy: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_service_free(proxy.service);
    keepsock_server_free(server);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not find a token that is gone */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_free(stop);
    return exit_status;
}
