/*
 * restart.c - replaces a running server without refusing a connection
 *
 *     restart [endpoint]
 *     systemd-socket-activate -l 7000 restart '*:7000'
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port), prints where and its
 * process ID, and sends each client's line back. When systemd or its predecessor
 * starts it, it inherits the listening socket.
 *
 *     kill -HUP PID
 *
 * starts a successor, which inherits the socket and reports when it serves. Then
 * the old process finishes its connections and ends. Replace the program's file
 * first to update it. If the successor fails to serve, the old process prints the
 * reason and continues. Ctrl-C or SIGTERM ends the program.
 * Exit status: 0 ended by a signal, 1 failed, 2 wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <keepsock.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* Answers one line. The library closes the connection afterwards, and the client
 * receives every byte. */
static void answer(keepsock_client *client, void *user)
{
    char line[1024];

    (void)user;
    if (keepsock_client_read_line(client, line, sizeof line, NULL, NULL) == KEEPSOCK_OK
        && keepsock_client_write_str(client, line, NULL) == KEEPSOCK_OK)
        keepsock_client_write_str(client, "\n", NULL);
}

int main(int argc, char **argv)
{
    keepsock_activation *inherited = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    keepsock_handover_item handed = { "main", NULL, NULL };
    sigset_t signals;
    int64_t pid;
    int signo, exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: restart [endpoint]\n");
        return 2;
    }

    /* Blocked in all threads: main takes the signals with sigwait(3). */
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    /* Adopts an inherited listening socket, or creates one. */
    if (keepsock_activation_from_env(&inherited, &error) != KEEPSOCK_OK
        || keepsock_activation_listen(inherited, argc > 1 ? argv[1] : "127.0.0.1:0", NULL, &server, &error)
            != KEEPSOCK_OK
        || keepsock_server_serve(server, NULL, answer, NULL, &service, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
        goto done;
    printf("%s %ld\n", where, (long)getpid());
    fflush(stdout);

    /* No later step can fail: the predecessor may end. */
    if (keepsock_activation_ready(inherited, &error) != KEEPSOCK_OK)
        goto done;

    handed.server = server;
    while (sigwait(&signals, &signo) == 0 && signo == SIGHUP) {
        if (keepsock_handover_start(NULL, &handed, 1, 10000, NULL, &pid, &error) == KEEPSOCK_OK) {
            fprintf(stderr, "restart: process %" PRId64 " serves\n", pid);
            break;
        }
        keepsock_error_print("restart: still serving", &error);
    }

    /* Clients may finish their requests; idle clients are closed after 5 s. */
    if (keepsock_service_stop(service, &error) != KEEPSOCK_OK)
        goto done;
    keepsock_service_wait(service, 5000, NULL);
    if (keepsock_service_drain(service, 5000, NULL, NULL, &error) != KEEPSOCK_OK)
        goto done;
    exit_status = 0;

done:
    keepsock_error_print("restart", &error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_activation_free(inherited);
    return exit_status;
}
