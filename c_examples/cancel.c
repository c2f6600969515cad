/*
 * cancel.c - ends a blocked read from another thread and from a signal handler
 *
 *     cancel
 *
 * Makes both sides of a connection itself, on 127.0.0.1 and any free port.
 * Exit status: 0 as expected, 1 not.
 */
#define _POSIX_C_SOURCE 200809L /* sigaction, kill, nanosleep */
#include <keepsock.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* A signal handler has no user pointer, so the token is global. */
static keepsock_cancel_token *cancel;

/* keepsock_cancel_token_fire is one of the few calls that a handler may make. */
static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_token_fire(cancel);
}

/* The pause lets the read start to wait. */
static const struct timespec pause_time = { 0, 100000000 };

static void *fire(void *unused)
{
    nanosleep(&pause_time, NULL);
    keepsock_cancel_token_fire(cancel);
    return unused;
}

static void *interrupt(void *unused)
{
    nanosleep(&pause_time, NULL);
    kill(getpid(), SIGINT); /* as Ctrl-C does */
    return unused;
}

/* The peer sends nothing, so this read would wait without end. It is cancelled;
 * then the peer sends, and the same connection reads the data. */
static int cancelled_read(keepsock_client *client, keepsock_client *peer, const char *how, void *(*canceller)(void *))
{
    keepsock_error *error = NULL;
    pthread_t thread;
    char line[80];
    int ok = 0;

    if (pthread_create(&thread, NULL, canceller, NULL) != 0) {
        fprintf(stderr, "cancel: no thread\n");
        return 0;
    }
    /* There is no race: a token stays fired until it is reset, so a read that
     * starts after the token was fired returns at once. */
    int32_t status = keepsock_client_read_line(client, line, sizeof line, NULL, &error);
    pthread_join(thread, NULL);
    if (status != KEEPSOCK_ERR_CANCELLED)
        goto done;
    printf("%s: %s\n", how, keepsock_error_message(error));
    keepsock_error_free(error);
    error = NULL;

    keepsock_cancel_token_reset(cancel);
    if (keepsock_client_write_str(peer, "still connected\n", &error) != KEEPSOCK_OK
        || keepsock_client_read_line(client, line, sizeof line, NULL, &error) != KEEPSOCK_OK)
        goto done;
    printf("afterwards: %s\n", line);
    ok = 1;

done:
    keepsock_error_print("cancel", &error);
    return ok;
}

int main(void)
{
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_client *client = NULL, *peer = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    struct sigaction action = { 0 };
    int exit_status = 1;

    /* A token in the options cancels connect as well, and the socket keeps it.
     * Only sockets with a token pay for cancellation. */
    if (keepsock_cancel_token_new(&cancel, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, cancel, &error) != KEEPSOCK_OK
        || keepsock_server_listen("127.0.0.1:0", NULL, &server, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK
        || keepsock_client_connect(where, options, &client, &error) != KEEPSOCK_OK
        || keepsock_server_accept(server, &peer, &error) != KEEPSOCK_OK)
        goto done;

    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART; /* the token ends the read, not EINTR */
    sigaction(SIGINT, &action, NULL);

    if (cancelled_read(client, peer, "by another thread", fire)
        && cancelled_read(client, peer, "by a signal handler", interrupt))
        exit_status = 0;

    /* Before the token is freed: the handler must no longer use it. */
    signal(SIGINT, SIG_DFL);

done:
    keepsock_error_print("cancel", &error);
    keepsock_client_free(client);
    keepsock_client_free(peer);
    keepsock_server_free(server);
    keepsock_options_free(options);
    keepsock_cancel_token_free(cancel);
    return exit_status;
}
