/*
 * push_client.c - prints the lines that a server sends
 *
 *     push_client [--count N] host:port
 *
 * The peer is push_server or anything that sends lines. With --count it ends
 * after N lines. Exit status: 0 the server closed, or N lines arrived; 1 failed,
 * 2 wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    long count = -1; /* no limit */
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

    /* A client that only receives has two problems: a firewall may drop an idle
     * connection, and a server may vanish without closing. Keepalive solves both:
     * a probe after 30 s without traffic keeps the firewall's entry, and after 4
     * unanswered probes, 10 s apart, the read returns KEEPSOCK_ERR_DEAD. There is
     * no read timeout, because an idle server is normal. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        /* A Unix socket has no keepalive, and its options reject one. */
        || (strncmp(argv[1], "unix:", 5) != 0
            && keepsock_options_set_keepalive(options, 30000, 10000, 4, &error) != KEEPSOCK_OK)
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

    /* The server closed after its last line. That is success unless --count
     * requires more lines. */
    if (error == NULL || (count < 0 && keepsock_error_status(error) == KEEPSOCK_ERR_END_OF_STREAM)) {
        keepsock_error_free(error);
        error = NULL;
        exit_status = 0;
    }

done:
    keepsock_error_print("push_client", &error);
    keepsock_client_free(client);
    keepsock_options_free(options);
    return exit_status;
}
