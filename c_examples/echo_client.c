/*
 * echo_client.c - sends its standard input line by line and prints the
 * replies
 *
 *     echo_client host:port
 *     date | echo_client localhost:7000
 *
 * The peer is echo_server, echo_accept or any other echo service. Exit
 * status: 0 every line came back unchanged, 1 failed, 2 wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    keepsock_options *options = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    keepsock_five_tuple connection;
    char line[1024], reply[1024];
    int exit_status = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: echo_client host:port\n");
        return 2;
    }

    /* By default a read waits as long as the connection lives. An echo service
     * must answer within ten seconds. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, 5000, &error) != KEEPSOCK_OK
        || keepsock_options_set_read_timeout(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_options_set_write_timeout(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_client_connect(argv[1], options, &client, &error) != KEEPSOCK_OK
        || keepsock_client_five_tuple(client, &connection, sizeof connection, &error) != KEEPSOCK_OK)
        goto done;
    fprintf(stderr, "%s\n", connection.text);

    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t len = strlen(line);

        if (keepsock_client_write_all(client, line, len, &error) != KEEPSOCK_OK
            || keepsock_client_read_exact(client, reply, len, &error) != KEEPSOCK_OK)
            goto done;
        if (memcmp(line, reply, len) != 0) {
            fprintf(stderr, "echo_client: the reply differs from the line\n");
            goto done;
        }
        fwrite(reply, 1, len, stdout);
        fflush(stdout);
    }

    /* free would close as well, but could not report an error */
    if (keepsock_client_close(client, &error) != KEEPSOCK_OK)
        goto done;
    exit_status = 0;

done:
    keepsock_error_print("echo_client", &error);
    keepsock_client_free(client);
    keepsock_options_free(options);
    return exit_status;
}
