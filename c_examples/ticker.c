/*
 * ticker.c - sends a line to all clients at a steady rate, whoever is slow
 *
 *     ticker [--rate N] [--cut] [endpoint]
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port), prints where, and
 * sends N lines a second (default 10, at most 1000) to whoever is there
 * (push_client). A client that does not keep up misses the oldest lines, or is
 * disconnected with --cut. Ctrl-C or SIGTERM ends it; then it prints what it
 * has done. Exit status: 0 ended as asked, 1 failed, 2 wrong arguments.
 */
#include <keepsock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A signal handler has no argument of ours, so the token is global. */
static keepsock_cancel *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_fire(stop);
}

int main(int argc, char **argv)
{
    /* No callback at all: clients come, listen and go, which the library sees
     * to. What they say is thrown away. */
    const keepsock_callbacks callbacks = { .size = sizeof callbacks };
    keepsock_options *options = NULL;
    keepsock_serve_options *serve_options = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    int32_t when_slow = KEEPSOCK_WHEN_SLOW_DROP_OLDEST;
    long rate = 10;
    unsigned long tick = 0;
    char line[64], report[4096];
    int exit_status = 1;

    if (argc > 2 && strcmp(argv[1], "--rate") == 0) {
        rate = strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc > 1 && strcmp(argv[1], "--cut") == 0) {
        when_slow = KEEPSOCK_WHEN_SLOW_DISCONNECT;
        argc--;
        argv++;
    }
    if (argc > 2 || rate < 1 || rate > 1000) {
        fprintf(stderr, "usage: ticker [--rate N] [--cut] [endpoint]\n");
        return 2;
    }

    /* Old ticks are of no use to anybody: few may wait for a client, beside
     * those that its kernel buffers hold. */
    if (keepsock_cancel_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_serve_options_new(&serve_options, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_max_queued(serve_options, 4096, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_when_slow(serve_options, when_slow, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve_events(server, serve_options, &callbacks, NULL, &service, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(keepsock_server_endpoint(server));
    fflush(stdout);

    /* Waiting for the end of the service is the clock: until it has ended, the
     * time has passed. A broadcast waits for nobody. */
    while (keepsock_service_wait(service, 1000 / rate, NULL) == KEEPSOCK_ERR_TIMED_OUT) {
        snprintf(line, sizeof line, "tick %lu\n", ++tick);
        if (keepsock_service_broadcast(service, line, strlen(line), NULL, 0, &error) != KEEPSOCK_OK)
            goto done;
    }

    /* Ended as asked, or for a reason that waiting once more tells. Drained,
     * there are no connections left, whose lines would be in the report. */
    if (keepsock_service_wait(service, 0, &error) != KEEPSOCK_OK
        || keepsock_service_drain(service, 2000, NULL, NULL, &error) != KEEPSOCK_OK
        || keepsock_service_dump(service, report, sizeof report, NULL, &error) != KEEPSOCK_OK)
        goto done;
    fputs(report, stdout);
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "ticker: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_serve_options_free(serve_options);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not find a token that is gone */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_free(stop);
    return exit_status;
}
