/*
 * echo_server.c - an echo server with one thread for each connection
 *
 *     echo_server [endpoint]
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port; '*:7000' is port
 * 7000 on every address, IPv4 and IPv6), prints where, and sends back the
 * data of each client. On Ctrl-C or SIGTERM it stops accepting, gives open
 * connections five seconds to end, and prints how many completed.
 * Exit status: 0 ended by a signal, 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* A signal handler has no user pointer, so the token is global. */
static keepsock_cancel_token *stop;

/* Firing a token is one of the few things that a signal handler may do. */
static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_token_fire(stop);
}

/* The library calls this on a thread of its own for each connection, and
 * closes the connection when it returns. Do not free the client here. */
static void echo(keepsock_client *client, void *user)
{
    char buf[16384];
    size_t len;
    keepsock_error *error = NULL;

    (void)user;
    while (keepsock_client_read(client, buf, sizeof buf, &len, &error) == KEEPSOCK_OK && len > 0
           && keepsock_client_write_all(client, buf, len, &error) == KEEPSOCK_OK)
        ;

    /* DRAINING is not a failure: the server is shutting down. */
    /* The message names the connection. */
    if (error != NULL && keepsock_error_status(error) != KEEPSOCK_ERR_DRAINING)
        fprintf(stderr, "echo_server: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
}

int main(int argc, char **argv)
{
    const char *endpoint = argc > 1 ? argv[1] : "127.0.0.1:0";
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    uint32_t completed, reset;
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: echo_server [endpoint]\n");
        return 2;
    }

    /* Accepted connections inherit the listener's options. A vanished idle
     * client is detected after 60 s + 3 * 10 s. The token applies to the listener
     * only: it ends accepting, not the connections. */
    if (keepsock_cancel_token_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        /* A Unix socket has no keepalive, and its options reject one. */
        || (strncmp(endpoint, "unix:", 5) != 0
            && keepsock_options_set_keepalive(options, 60000, 10000, 3, &error) != KEEPSOCK_OK)
        || keepsock_options_set_nodelay(options, true, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_server_listen(endpoint, options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve(server, NULL, echo, NULL, &service, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(where);
    fflush(stdout);

    /* The library's threads serve until the token is fired. */
    if (keepsock_service_wait_stopped(service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_service_drain(service, 5000, &completed, &reset, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " completed, %" PRIu32 " reset\n", completed, reset);
    exit_status = 0;

done:
    keepsock_error_print("echo_server", &error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not use a freed token */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_token_free(stop);
    return exit_status;
}
