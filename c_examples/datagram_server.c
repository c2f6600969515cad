/*
 * datagram_server.c - sends each datagram back, over UDP or a Unix socket
 *
 *     datagram_server [endpoint]
 *
 * Binds to endpoint (default 127.0.0.1:0, any free port; '*:7000' is port
 * 7000 on every address, IPv4 and IPv6; unix:/path and unix:@name are Unix
 * datagram sockets), prints where, and serves with two threads until Ctrl-C
 * or SIGTERM. Each reply leaves from the address that the datagram was sent to,
 * also on a machine with several addresses. Exit status: 0 ended by a signal,
 * 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>

/* A signal handler has no user pointer, so the token is global. */
static keepsock_cancel_token *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_token_fire(stop);
}

/* The library calls this for each datagram, from several threads at once. */
static void answer(keepsock_datagram *socket, const keepsock_datagram_info *info, const void *buf,
                   size_t len, void *user)
{
    keepsock_error *error = NULL;

    (void)user;
    /* A reply to a sender without a name, or to a closed socket, fails. */
    keepsock_datagram_reply(socket, info, buf, len, &error);
    keepsock_error_print("datagram_server", &error);
}

int main(int argc, char **argv)
{
    keepsock_options *options = NULL;
    keepsock_serve_options *serve_options = NULL;
    keepsock_datagram *socket = NULL;
    keepsock_datagram_service *service = NULL;
    keepsock_datagram_stats stats;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: datagram_server [endpoint]\n");
        return 2;
    }

    if (keepsock_cancel_token_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        /* A Unix client that does not read its replies must not block a thread without end. */
        || keepsock_options_set_write_timeout(options, 100, &error) != KEEPSOCK_OK
        || keepsock_datagram_bind(argc > 1 ? argv[1] : "127.0.0.1:0", options, &socket, &error) != KEEPSOCK_OK
        || keepsock_datagram_endpoint(socket, where, sizeof where, NULL, &error) != KEEPSOCK_OK
        || keepsock_serve_options_new(&serve_options, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_threads(serve_options, 2, &error) != KEEPSOCK_OK
        || keepsock_datagram_serve(socket, serve_options, answer, NULL, &service, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(where);
    fflush(stdout);

    /* The library's threads serve until the token is fired. Datagrams that
     * arrive while the receive buffer is full are lost; the kernel counts them. */
    if (keepsock_datagram_service_wait(service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_datagram_get_stats(socket, &stats, sizeof stats, &error) != KEEPSOCK_OK)
        goto done;
    printf("%" PRId64 " received, %" PRId64 " dropped\n", stats.served, stats.dropped);
    exit_status = 0;

done:
    keepsock_error_print("datagram_server", &error);
    keepsock_datagram_service_free(service);
    keepsock_datagram_free(socket); /* after its service */
    keepsock_options_free(options);
    keepsock_serve_options_free(serve_options);
    signal(SIGINT, SIG_DFL); /* the handler must not use a freed token */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_token_free(stop);
    return exit_status;
}
