/*
 * handshake.c - shows the TCP three-way handshake: flags, sequence numbers, states
 *
 *     handshake             between two sockets of this program, on 127.0.0.1
 *     handshake HOST:PORT   with a server
 *
 * Capturing all three packets requires the right to capture: run it as root, or
 * inside "unshare -Urn" (after "ip link set lo up"). Without that right, the
 * kernel still returns the SYN that opened an accepted connection.
 *
 * Exit status: 0 shown, 1 failed, 2 wrong arguments, 3 no right to capture.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 5000 };

/* Prints the SYN of the client, which a server can read without privileges. */
static void show_syn(const keepsock_client *accepted)
{
    keepsock_segment syn;
    keepsock_error *error = NULL;

    if (keepsock_client_saved_syn(accepted, &syn, sizeof syn, &error) == KEEPSOCK_OK) {
        printf("The SYN, saved by the kernel:\n\n%s\n\n", syn.line);
        printf("    from %s port %u: initial sequence number %" PRIu32 ", MSS %u, window scale %d, TTL %u\n\n",
               syn.source_address, (unsigned)syn.source_port, syn.seq, (unsigned)syn.mss, syn.window_scale,
               (unsigned)syn.ttl);
    } else {
        /* Not supported on this system, or the kernel used SYN cookies under load. */
        printf("The SYN: %s\n\n", keepsock_error_message(error));
    }
    keepsock_error_free(error);
}

/* Prints the three packets as lines, as data and as a diagram. */
static int show_handshake(const keepsock_handshake *handshake, keepsock_error **error)
{
    keepsock_segment packets[3];
    char diagram[4096];
    size_t i;

    printf("The handshake:\n\n");
    for (i = 0; i < 3; i++) {
        if (keepsock_handshake_segment(handshake, i, &packets[i], sizeof packets[i], error) != KEEPSOCK_OK)
            return 0;
        printf("%s\n", packets[i].line);
    }
    putchar('\n');
    for (i = 0; i < 3; i++) {
        const keepsock_segment *p = &packets[i];

        printf("    %-3s %-3s  seq %10" PRIu32 "  ack %10" PRIu32 "  then client %s, server %s",
               p->flags & KEEPSOCK_TCP_SYN ? "SYN" : "", p->flags & KEEPSOCK_TCP_ACK ? "ACK" : "", p->seq, p->ack,
               keepsock_tcp_state_str(p->client_state), keepsock_tcp_state_str(p->server_state));
        if (p->retransmissions > 0)
            printf(" (sent again: %" PRIu32 ")", p->retransmissions);
        putchar('\n');
    }
    if (keepsock_handshake_diagram(handshake, diagram, sizeof diagram, NULL, error) != KEEPSOCK_OK)
        return 0;
    printf("\n%s\n", diagram);
    return 1;
}

/* The port of "host:port"; 0 if there is none. */
static uint16_t port_of(const char *endpoint)
{
    const char *colon = strrchr(endpoint, ':');
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, NULL, 10);

    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

int main(int argc, char **argv)
{
    const char *endpoint = argc == 2 ? argv[1] : NULL;
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_client *client = NULL, *accepted = NULL;
    keepsock_capture *capture = NULL;
    keepsock_handshake *handshake = NULL;
    keepsock_error *error = NULL;
    keepsock_five_tuple connection;
    char where[KEEPSOCK_TEXT_SIZE];
    int32_t captures;
    int exit_status = 1;

    if (argc > 2 || (endpoint != NULL && port_of(endpoint) == 0)) {
        fprintf(stderr, "usage: handshake [HOST:PORT]\n");
        return 2;
    }

    /* The kernel saves SYNs only if the option is set before listen. */
    if (endpoint == NULL) {
        if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
            || keepsock_options_set_save_syn(options, true, &error) != KEEPSOCK_OK
            || keepsock_server_listen("127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK
            || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
            goto done;
        endpoint = where;
    }

    /* The capture must start before the connection. */
    captures = keepsock_capture_new(port_of(endpoint), &capture, &error);
    if (captures == KEEPSOCK_ERR_PERMISSION_DENIED || captures == KEEPSOCK_ERR_UNSUPPORTED) {
        keepsock_error_print("handshake", &error);
        exit_status = 3;
        if (server == NULL) /* the kernel saves received SYNs only, not the one that it sends */
            goto done;
    } else if (captures != KEEPSOCK_OK) {
        goto done;
    }

    if (keepsock_client_connect(endpoint, NULL, &client, &error) != KEEPSOCK_OK
        || keepsock_client_five_tuple(client, &connection, sizeof connection, &error) != KEEPSOCK_OK)
        goto done;
    printf("%s\n\n", connection.text);
    if (server != NULL) {
        if (keepsock_server_accept(server, &accepted, &error) != KEEPSOCK_OK)
            goto done;
        show_syn(accepted);
    }

    if (capture != NULL
        && keepsock_capture_handshake(capture, &connection, sizeof connection, PATIENCE_MS, &handshake, &error)
            == KEEPSOCK_OK
        && show_handshake(handshake, &error))
        exit_status = 0;

done:
    if (error != NULL)
        exit_status = 1;
    keepsock_error_print("handshake", &error);
    keepsock_handshake_free(handshake);
    keepsock_capture_free(capture);
    keepsock_client_free(accepted);
    keepsock_client_free(client);
    keepsock_server_free(server);
    keepsock_options_free(options);
    return exit_status;
}
