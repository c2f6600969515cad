/*
 * restart.c - a server that is replaced while it runs, and refuses nobody
 *
 *     restart [endpoint]
 *     systemd-socket-activate -l 7000 restart '*:7000'
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port), prints where and
 * the number of its process, and answers each client's line with the same line.
 * Started by systemd, or by itself, it has the listening socket already.
 *
 *     kill -HUP PID
 *
 * starts a new copy of it, which has the same socket and says when it serves;
 * then the old one answers those who are connected, and ends. Replace the program's
 * file before, and it is an update. If the new one does not begin to serve, the old
 * one says why, and goes on. Ctrl-C or SIGTERM ends it.
 * Exit status: 0 ended as asked, 1 failed, 2 wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <keepsock.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* One line for each client. The library closes the connection afterwards, so that the
 * client receives every byte. */
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
    keepsock_inherited *inherited = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    keepsock_handed handed = { "main", NULL, NULL };
    sigset_t signals;
    int64_t pid;
    uint32_t left;
    int signo, exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: restart [endpoint]\n");
        return 2;
    }

    /* The signals are waited for, and no thread is interrupted by them. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    /* The same whether somebody has started it with a listening socket or not. */
    if (keepsock_inherited_take(&inherited, &error) != KEEPSOCK_OK
        || keepsock_inherited_listen(inherited, argc > 1 ? argv[1] : "127.0.0.1:0", NULL, &server, &error)
            != KEEPSOCK_OK
        || keepsock_server_serve(server, NULL, answer, NULL, &service, &error) != KEEPSOCK_OK)
        goto done;
    printf("%s %ld\n", keepsock_server_endpoint(server), (long)getpid());
    fflush(stdout);

    /* Nothing can fail any more: whoever was before may go. */
    if (keepsock_inherited_ready(inherited, &error) != KEEPSOCK_OK)
        goto done;

    handed.server = server;
    while (sigwait(&signals, &signo) == 0 && signo == SIGHUP) {
        if (keepsock_hand_over(NULL, &handed, 1, 10000, NULL, &pid, &error) == KEEPSOCK_OK) {
            fprintf(stderr, "restart: process %" PRId64 " serves\n", pid);
            break;
        }
        fprintf(stderr, "restart: still serving: %s\n", keepsock_error_message(error));
        keepsock_error_free(error);
        error = NULL;
    }

    /* Requests that are under way are answered; whoever says nothing is told after 5 s. */
    if (keepsock_service_finish(service, 5000, &left, &error) != KEEPSOCK_OK
        || keepsock_service_drain(service, 5000, NULL, NULL, &error) != KEEPSOCK_OK)
        goto done;
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "restart: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_inherited_free(inherited);
    return exit_status;
}
