/*
 * echo_server.c - an echo server with one thread for each connection
 *
 *     echo_server [endpoint]
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port; '*:7000' is port
 * 7000 on every address, IPv4 and IPv6), prints where, and sends back what
 * each client sends. Ctrl-C or SIGTERM ends it: it stops accepting, gives the
 * clients that are still connected five seconds, and says how that went.
 * Exit status: 0 ended as asked, 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>

/* A signal handler has no argument of ours, so the token is global. */
static keepsock_cancel *stop;

/* Firing a token is one of the few things that a signal handler may do. */
static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_fire(stop);
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

    /* DRAINING is no failure: the server wants to end, and so do we. */
    if (error != NULL && keepsock_error_status(error) != KEEPSOCK_ERR_DRAINING)
        fprintf(stderr, "%s: %s\n", keepsock_client_name(client), keepsock_error_message(error));
    keepsock_error_free(error);
}

int main(int argc, char **argv)
{
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    uint32_t finished, cut;
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: echo_server [endpoint]\n");
        return 2;
    }

    /* The listener's options are those of each connection that it accepts.
     * An idle client that vanished is known after 60 s + 3 * 10 s. The token
     * is the listener's alone: it ends accepting, not the connections. */
    if (keepsock_cancel_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_keepalive(options, 60000, 10000, 3, &error) != KEEPSOCK_OK
        || keepsock_options_set_nodelay(options, true, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve(server, NULL, echo, NULL, &service, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(keepsock_server_endpoint(server));
    fflush(stdout);

    /* Serving goes on in other threads until the token is fired. */
    if (keepsock_service_wait(service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_service_drain(service, 5000, &finished, &cut, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " finished, %" PRIu32 " cut\n", finished, cut);
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "echo_server: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not find a token that is gone */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_free(stop);
    return exit_status;
}
