/*
 * push_client.c - prints what a server sends, for as long as it sends
 *
 *     push_client [--count N] host:port
 *
 * The peer is push_server or anything that sends lines. With --count it ends
 * after N lines. Exit status: 0 the server closed, or N lines came; 1 failed,
 * 2 wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    long count = -1; /* all */
    keepsock_options *options = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    char line[1024];
    int exit_status = 1;

    if (argc > 2 && strcmp(argv[1], "--count") == 0) {
        count = strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: push_client [--count N] host:port\n");
        return 2;
    }

    /* A client that only listens has two enemies: a firewall that forgets
     * connections on which nothing moves, and a server that vanishes without
     * closing. Keepalive deals with both: a probe after 30 s of silence keeps
     * the one from forgetting, and 4 unanswered ones, 10 s apart, end the
     * read with KEEPSOCK_ERR_DEAD. No read timeout, then: silence is normal. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_keepalive(options, 30000, 10000, 4, &error) != KEEPSOCK_OK
        || keepsock_client_connect(argv[1], options, &client, &error) != KEEPSOCK_OK)
        goto done;

    while (count != 0) {
        if (keepsock_client_read_line(client, line, sizeof line, NULL, &error) != KEEPSOCK_OK)
            break;
        puts(line);
        fflush(stdout);
        if (count > 0)
            count--;
    }

    /* The server has closed, after its last line. That's what we waited for,
     * unless more lines were asked for. */
    if (error == NULL || (count < 0 && keepsock_error_status(error) == KEEPSOCK_ERR_END_OF_STREAM)) {
        keepsock_error_free(error);
        error = NULL;
        exit_status = 0;
    }

done:
    if (error != NULL)
        fprintf(stderr, "push_client: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_client_free(client);
    keepsock_options_free(options);
    return exit_status;
}
