/*
 * datagram_server.c - answers each datagram with itself, over UDP or a Unix
 * socket
 *
 *     datagram_server [endpoint]
 *
 * Binds to endpoint (default 127.0.0.1:0, any free port; '*:7000' is port
 * 7000 on every address, IPv4 and IPv6; unix:/path and unix:@name are Unix
 * datagram sockets), prints where, and serves from two threads until Ctrl-C
 * or SIGTERM. Each answer leaves from the address that was asked, though the
 * machine have several. Exit status: 0 ended as asked, 1 failed, 2 wrong
 * arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>

/* A signal handler has no argument of ours, so the token is global. */
static keepsock_cancel *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_fire(stop);
}

/* The library calls this for each datagram, from several threads at once. */
static void answer(keepsock_datagram *socket, const keepsock_datagram_info *info, const void *data,
                   size_t len, void *user)
{
    keepsock_error *error = NULL;

    (void)user;
    /* A sender without a name, or one that is gone, cannot be answered. */
    if (keepsock_datagram_reply(socket, info, data, len, &error) != KEEPSOCK_OK)
        fprintf(stderr, "datagram_server: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
}

int main(int argc, char **argv)
{
    keepsock_options *options = NULL;
    keepsock_datagram *socket = NULL;
    keepsock_datagram_service *service = NULL;
    keepsock_datagram_stats stats;
    keepsock_error *error = NULL;
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: datagram_server [endpoint]\n");
        return 2;
    }

    if (keepsock_cancel_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        /* Over a Unix socket, whoever does not read the answers must not keep a thread for ever. */
        || keepsock_options_set_write_timeout(options, 100, &error) != KEEPSOCK_OK
        || keepsock_datagram_bind(argc > 1 ? argv[1] : "127.0.0.1:0", options, &socket, &error) != KEEPSOCK_OK
        || keepsock_datagram_serve(socket, 2, answer, NULL, &service, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(keepsock_datagram_endpoint(socket));
    fflush(stdout);

    /* Serving goes on in other threads until the token is fired. What came
     * while nobody had time for it is gone: the kernel counts it. */
    if (keepsock_datagram_service_wait(service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_datagram_snapshot(socket, &stats, sizeof stats, &error) != KEEPSOCK_OK)
        goto done;
    printf("%" PRIu64 " received, %" PRId64 " dropped\n", keepsock_datagram_service_received(service),
           stats.dropped);
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "datagram_server: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_datagram_service_free(service);
    keepsock_datagram_free(socket); /* after its service */
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not find a token that is gone */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_free(stop);
    return exit_status;
}
