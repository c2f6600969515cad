/*
 * poll_loop.c - a client in the program's own poll loop, which reconnects
 *
 *     poll_loop [--sessions N] host:port
 *
 * Does what reconnect.c does, without a thread and without a library call that
 * waits. The program waits in its own poll(), where it can add descriptors of
 * other work. With --sessions the program ends after N connections.
 * Exit status: 0 after N connections, 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The descriptors of the poll loop. While connecting there is one for each
 * attempt and one for the name lookup; then there is one for the connection. */
struct loop {
    struct pollfd fds[64];
    nfds_t count;
};

static void add(struct loop *loop, int fd, short events)
{
    if (loop->count < sizeof loop->fds / sizeof loop->fds[0])
        loop->fds[loop->count++] = (struct pollfd){fd, events, 0};
}

static void remove_fd(struct loop *loop, int fd)
{
    for (nfds_t i = 0; i < loop->count; i++)
        if (loop->fds[i].fd == fd)
            loop->fds[i--] = loop->fds[--loop->count];
}

/* Called for each descriptor of a connect in progress. */
static void on_watch(keepsock_fd fd, int32_t watch, void *user)
{
    if (watch == KEEPSOCK_WATCH_REMOVE)
        remove_fd(user, fd);
    else
        add(user, fd, watch == KEEPSOCK_WATCH_READ ? POLLIN : POLLOUT);
}

/* Called before each delay. error is NULL if an established connection has ended. */
static void on_retry(const keepsock_error *error, uint32_t tries, int64_t wait_ms, void *user)
{
    (void)user;
    if (error == NULL)
        printf("connect in %" PRId64 " ms\n", wait_ms);
    else
        printf("try %" PRIu32 ": %s; next in %" PRId64 " ms\n", tries, keepsock_error_message(error), wait_ms);
    fflush(stdout);
}

/* Prepares a new connection. */
static int32_t opened(struct loop *loop, keepsock_client *client, keepsock_error **error)
{
    keepsock_five_tuple connection;
    keepsock_fd fd;
    int32_t status;

    if ((status = keepsock_client_set_nonblocking(client, true, error)) != KEEPSOCK_OK
        || (status = keepsock_client_five_tuple(client, &connection, sizeof connection, error)) != KEEPSOCK_OK
        || (status = keepsock_client_fd(client, &fd, error)) != KEEPSOCK_OK)
        return status;
    add(loop, fd, POLLIN);
    printf("connected: %s\n", connection.text);
    fflush(stdout);
    return KEEPSOCK_OK; /* Send the login or the subscriptions of the new connection here. */
}

/* Reads what has arrived, sends a heartbeat that is due, and checks the peer. */
static int32_t turn(keepsock_client *client, int64_t *timeout_ms, keepsock_error **error)
{
    char line[1024];
    int32_t status;

    while ((status = keepsock_client_read_line(client, line, sizeof line, NULL, error)) == KEEPSOCK_OK) {
        puts(line);
        fflush(stdout);
    }
    if (status != KEEPSOCK_ERR_WOULD_BLOCK)
        return status;
    keepsock_error_free(*error);
    *error = NULL;
    return keepsock_client_check_liveness(client, timeout_ms, error);
}

int main(int argc, char **argv)
{
    long sessions = -1; /* no limit */
    struct loop loop = {.count = 0};
    keepsock_options *options = NULL;
    keepsock_reconnect *reconnect = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    int exit_status = 1;

    if (argc > 2 && strcmp(argv[1], "--sessions") == 0) {
        sessions = strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: poll_loop [--sessions N] host:port\n");
        return 2;
    }

    /* A vanished server is detected within 10 s, a try takes at most 5 s, and the
     * delays between tries are random, below 50 ms, 100 ms, ... 10 s. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_dead_after(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, 5000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_new(argv[1], options, &reconnect, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_backoff(reconnect, 50, 10000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_on_retry(reconnect, on_retry, NULL, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_watch(reconnect, on_watch, NULL, &loop, &error) != KEEPSOCK_OK)
        goto done;

    while (sessions != 0) {
        int64_t timeout_ms = KEEPSOCK_INFINITE;
        int32_t status;

        if (client == NULL) {
            status = keepsock_reconnect_try_connect(reconnect, &client, &error);
            if (status == KEEPSOCK_OK) {
                status = opened(&loop, client, &error);
            } else if (status == KEEPSOCK_ERR_WOULD_BLOCK) {
                keepsock_error_free(error);
                error = NULL;
                status = keepsock_reconnect_next_timeout(reconnect, &timeout_ms, &error);
            }
            if (status != KEEPSOCK_OK)
                goto done;
        }
        if (client != NULL && turn(client, &timeout_ms, &error) != KEEPSOCK_OK) {
            printf("lost: %s\n", keepsock_error_message(error));
            fflush(stdout);
            keepsock_error_free(error);
            error = NULL;
            loop.count = 0; /* before the connection closes its descriptor */
            keepsock_client_free(client);
            client = NULL;
            if (sessions > 0)
                sessions--;
            continue;
        }
        if (poll(loop.fds, loop.count, (int)timeout_ms) < 0)
            goto done;
    }
    exit_status = 0;

done:
    keepsock_error_print("poll_loop", &error);
    keepsock_client_free(client);
    keepsock_reconnect_free(reconnect);
    keepsock_options_free(options);
    return exit_status;
}
