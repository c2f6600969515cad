/*
 * echo_accept.c - an echo server without threads: one connection after another
 *
 *     echo_accept [--count N] [endpoint]
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port), prints where, and
 * sends back the data of each client until that client ends its stream.
 * With --count it ends after N clients. Exit status: 0 served N clients,
 * 1 failed, 2 wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    long count = -1; /* no limit */
    keepsock_server *server = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    char buf[16384];
    size_t len;
    int exit_status = 1;

    if (argc > 2 && strcmp(argv[1], "--count") == 0) {
        count = strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc > 2) {
        fprintf(stderr, "usage: echo_accept [--count N] [endpoint]\n");
        return 2;
    }

    if (keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", NULL, &server, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
        goto done;
    puts(where);
    fflush(stdout); /* a pipe is fully buffered */

    while (count != 0) {
        if (keepsock_server_accept(server, &client, &error) != KEEPSOCK_OK)
            goto done;

        /* A read of length 0 is the end of the client's stream. */
        while (keepsock_client_read(client, buf, sizeof buf, &len, &error) == KEEPSOCK_OK && len > 0
               && keepsock_client_write_all(client, buf, len, &error) == KEEPSOCK_OK)
            ;

        /* An error of one client must not stop the server. */
        keepsock_error_print("echo_accept", &error);
        keepsock_client_free(client); /* closes the connection as well */
        if (count > 0)
            count--;
    }
    exit_status = 0;

done:
    keepsock_error_print("echo_accept", &error);
    keepsock_server_free(server);
    return exit_status;
}
