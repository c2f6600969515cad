/*
 * reconnect.c - prints what a server sends, and outlives the server
 *
 *     reconnect [--sessions N] host:port
 *
 * The peer is push_server or anything that sends lines. End the server, start
 * it again: this client tells what happens, and is connected again. With
 * --sessions it ends after N connections. Exit status: 0 so many were made,
 * 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before each wait. Without an error it's the connection of before that ended. */
static void on_retry(const keepsock_error *error, uint32_t tries, int64_t wait_ms, void *user)
{
    (void)user;
    if (error == NULL)
        printf("connect in %" PRId64 " ms\n", wait_ms);
    else
        printf("try %" PRIu32 ": %s; next in %" PRId64 " ms\n", tries, keepsock_error_message(error), wait_ms);
    fflush(stdout);
}

static void session(keepsock_client *client)
{
    keepsock_error *error = NULL;
    char line[1024];

    printf("connected: %s\n", keepsock_client_name(client));
    fflush(stdout);
    /* What the server has to know again, such as who we are, goes here. */
    while (keepsock_client_read_line(client, line, sizeof line, NULL, &error) == KEEPSOCK_OK) {
        puts(line);
        fflush(stdout);
    }
    printf("lost: %s\n", keepsock_error_message(error));
    fflush(stdout);
    keepsock_error_free(error);
}

int main(int argc, char **argv)
{
    long sessions = -1; /* for ever */
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
        fprintf(stderr, "usage: reconnect [--sessions N] host:port\n");
        return 2;
    }

    /* Each connection will have these: a server that vanishes without closing
     * is known in 10 s, and a try takes 5 s at most. Between tries passes a
     * random time below 50 ms, 100 ms, 200 ms, ... 10 s, so that not all of a
     * server's clients come back at once. After 10 minutes it's given up. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_dead_after(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, 5000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_new(argv[1], options, &reconnect, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_back_off(reconnect, 50, 10000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_limit(reconnect, 600000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_on_retry(reconnect, on_retry, NULL, &error) != KEEPSOCK_OK)
        goto done;

    while (sessions != 0) {
        if (keepsock_reconnect_connect(reconnect, &client, &error) != KEEPSOCK_OK)
            goto done;
        session(client);
        keepsock_client_free(client);
        client = NULL;
        if (sessions > 0)
            sessions--;
    }
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "reconnect: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_client_free(client);
    keepsock_reconnect_free(reconnect);
    keepsock_options_free(options);
    return exit_status;
}
