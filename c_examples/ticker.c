/*
 * ticker.c - sends a line to all clients at a steady rate, without waiting for slow ones
 *
 *     ticker [--rate N] [--disconnect] [endpoint]
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port), prints where, and
 * sends N lines a second (default 10, at most 1000) to all clients
 * (push_client). A slow client misses the oldest lines, or is disconnected with
 * --disconnect. On Ctrl-C or SIGTERM it prints statistics and ends. Exit status: 0 ended
 * by a signal, 1 failed, 2 wrong arguments.
 */
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A signal handler has no user pointer, so the token is global. */
static keepsock_cancel_token *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_token_fire(stop);
}

int main(int argc, char **argv)
{
    /* No callbacks: the library accepts, closes, and discards the input of
     * clients. */
    const keepsock_callbacks callbacks = { .size = sizeof callbacks };
    keepsock_options *options = NULL;
    keepsock_serve_options *serve_options = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    int32_t when_slow = KEEPSOCK_OVERFLOW_POLICY_DROP_OLDEST;
    long rate = 10;
    unsigned long tick = 0;
    char line[64], report[4096];
    int exit_status = 1;

    if (argc > 2 && strcmp(argv[1], "--rate") == 0) {
        rate = strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc > 1 && strcmp(argv[1], "--disconnect") == 0) {
        when_slow = KEEPSOCK_OVERFLOW_POLICY_DISCONNECT;
        argc--;
        argv++;
    }
    if (argc > 2 || rate < 1 || rate > 1000) {
        fprintf(stderr, "usage: ticker [--rate N] [--disconnect] [endpoint]\n");
        return 2;
    }

    /* Old ticks are useless, so the send queue is short. The kernel's buffers hold
     * more. */
    if (keepsock_cancel_token_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_serve_options_new(&serve_options, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_queue_limit(serve_options, 4096, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_overflow_policy(serve_options, when_slow, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve_events(server, serve_options, &callbacks, NULL, &service, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(where);
    fflush(stdout);

    /* Waiting for the end of the service is the clock: a timeout means that it is
     * time for the next tick. A broadcast does not wait for any client. */
    while (keepsock_service_wait_stopped(service, 1000 / rate, NULL) == KEEPSOCK_ERR_TIMED_OUT) {
        snprintf(line, sizeof line, "tick %lu\n", ++tick);
        if (keepsock_service_broadcast(service, NULL, line, strlen(line), NULL, NULL, NULL, NULL, &error) != KEEPSOCK_OK)
            goto done;
    }

    /* The service was stopped, or has failed; a second wait returns the error.
     * After a drain no connections are left, so the report has no lines for them. */
    if (keepsock_service_wait_stopped(service, 0, &error) != KEEPSOCK_OK
        || keepsock_service_drain(service, 2000, NULL, NULL, &error) != KEEPSOCK_OK
        || keepsock_service_dump(service, report, sizeof report, NULL, &error) != KEEPSOCK_OK)
        goto done;
    fputs(report, stdout);
    exit_status = 0;

done:
    keepsock_error_print("ticker", &error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_serve_options_free(serve_options);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not use a freed token */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_token_free(stop);
    return exit_status;
}
