/*
 * first.c - the smallest complete client: send a line, read a line
 *
 *     first host:port
 *
 * Try it against echo_server or echo_accept. Exit status: 0 the reply arrived,
 * 1 failed.
 */
#include <keepsock.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    char line[1024];

    int ok = argc == 2
        && keepsock_client_connect(argv[1], NULL, &client, &error) == KEEPSOCK_OK
        && keepsock_client_write_str(client, "hello\n", &error) == KEEPSOCK_OK
        && keepsock_client_read_line(client, line, sizeof line, NULL, &error) == KEEPSOCK_OK
        && puts(line) >= 0;
    if (argc != 2)
        fprintf(stderr, "usage: first host:port\n");

    keepsock_error_print("first", &error);
    keepsock_client_close(client, NULL); /* the reply has arrived: an error no longer matters */
    keepsock_client_free(client);
    return ok ? 0 : 1;
}
