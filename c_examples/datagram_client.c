/*
 * datagram_client.c - sends each line of its standard input as a datagram, and
 * prints the replies
 *
 *     datagram_client endpoint
 *     date | datagram_client localhost:7000
 *
 * Datagrams may get lost, so each is sent up to three times, and the program
 * waits one second for a reply. The peer is datagram_server or any other echo
 * service. Exit status: 0 all were answered, 1 failed, 2 wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <string.h>

/* Sends a line until its reply arrives. Datagrams may arrive late or twice, so
 * a different datagram is the reply to an earlier line. If no socket has the
 * port, the peer's machine reports that (ICMP). Any node on the path could forge
 * such a report, so it fails no call; keepsock_datagram_recv_error() returns it. */
static int32_t request(keepsock_datagram *socket, const char *line, size_t len, keepsock_error **error)
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
            fprintf(stderr, "datagram_client: reported: %s\n", keepsock_status_str(report.status));
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
    keepsock_five_tuple addresses;
    char line[1024];
    int exit_status = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: datagram_client endpoint\n");
        return 2;
    }

    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_read_timeout(options, 1000, &error) != KEEPSOCK_OK
        || keepsock_datagram_connect(argv[1], options, &socket, &error) != KEEPSOCK_OK
        || keepsock_datagram_five_tuple(socket, &addresses, sizeof addresses, &error) != KEEPSOCK_OK)
        goto done;
    fprintf(stderr, "%s\n", addresses.text);

    while (fgets(line, sizeof line, stdin) != NULL) {
        if (request(socket, line, strlen(line), &error) != KEEPSOCK_OK)
            goto done;
        fputs(line, stdout);
        fflush(stdout);
    }
    exit_status = 0;

done:
    keepsock_error_print("datagram_client", &error);
    keepsock_datagram_free(socket);
    keepsock_options_free(options);
    return exit_status;
}
