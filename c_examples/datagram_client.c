/*
 * datagram_client.c - sends its standard input, each line a datagram, and
 * prints what is answered
 *
 *     datagram_client endpoint
 *     date | datagram_client localhost:7000
 *
 * Datagrams may get lost, so each is sent up to three times, with a second
 * for the answer. The peer is datagram_server or any other echo service.
 * Exit status: 0 all were answered, 1 failed, 2 wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <string.h>

/* Sends, and waits for the answer; what got lost is sent again. Datagrams come
 * late, and twice, too: what is no answer to this line is one to an earlier.
 * But if nobody has the port there, its machine says so (ICMP). That fails no
 * call, for anybody on the way could forge it; keepsock keeps it for who wants
 * to know. */
static int32_t ask(keepsock_datagram *socket, const char *line, size_t len, keepsock_error **error)
{
    char reply[1024];
    keepsock_datagram_info info;
    keepsock_datagram_error report;
    int32_t status;

    for (int tries = 1;; tries++) {
        if ((status = keepsock_datagram_send(socket, line, len, error)) != KEEPSOCK_OK)
            return status;
        do {
            status = keepsock_datagram_recv(socket, reply, sizeof reply, &info, sizeof info, error);
        } while (status == KEEPSOCK_OK && (info.len != len || memcmp(line, reply, len) != 0));
        if (status != KEEPSOCK_ERR_TIMED_OUT || tries == 3)
            return status;
        if (keepsock_datagram_recv_error(socket, &report, sizeof report, NULL) == KEEPSOCK_OK
            && report.status != KEEPSOCK_OK) {
            fprintf(stderr, "datagram_client: reported: %s\n", keepsock_status_text(report.status));
            return status;
        }
        keepsock_error_free(*error);
        *error = NULL;
    }
}

int main(int argc, char **argv)
{
    keepsock_options *options = NULL;
    keepsock_datagram *socket = NULL;
    keepsock_error *error = NULL;
    char line[1024];
    int exit_status = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: datagram_client endpoint\n");
        return 2;
    }

    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_read_timeout(options, 1000, &error) != KEEPSOCK_OK
        || keepsock_datagram_connect(argv[1], options, &socket, &error) != KEEPSOCK_OK)
        goto done;
    fprintf(stderr, "%s\n", keepsock_datagram_name(socket));

    while (fgets(line, sizeof line, stdin) != NULL) {
        if (ask(socket, line, strlen(line), &error) != KEEPSOCK_OK)
            goto done;
        fputs(line, stdout);
        fflush(stdout);
    }
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "datagram_client: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_datagram_free(socket);
    keepsock_options_free(options);
    return exit_status;
}
