/*
 * handshake.c - TCP's three-way handshake: flags, numbers, and both sides' states
 *
 *     handshake             between two sockets of this program, on 127.0.0.1
 *     handshake HOST:PORT   with a server
 *
 * To see all three packets needs the right to capture: run it as root, or inside
 * of "unshare -Urn" (there, bring the loopback up first: "ip link set lo up").
 * Without it, the SYN that opened an accepted connection can still be had.
 *
 * Exit status: 0 shown, 1 failed, 2 usage, 3 no right to capture.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 5000 };

/* What any server can know of its peer, without privileges: the SYN. */
static void show_syn(const keepsock_client *accepted)
{
    keepsock_segment syn;
    keepsock_error *error = NULL;

    if (keepsock_client_syn(accepted, &syn, sizeof syn, &error) == KEEPSOCK_OK) {
        printf("The SYN, kept by the kernel:\n\n%s\n\n", syn.line);
        printf("    from %s port %u: initial sequence number %" PRIu32 ", MSS %u, window scale %d, TTL %u\n\n",
               syn.source_address, (unsigned)syn.source_port, syn.seq, (unsigned)syn.mss, syn.window_scale,
               (unsigned)syn.ttl);
    } else {
        /* Another system, or a kernel so busy that it used SYN cookies. */
        printf("The SYN: %s\n\n", keepsock_error_message(error));
    }
    keepsock_error_free(error);
}

/* The three packets: as data, as lines, as a diagram. */
static int show_handshake(const keepsock_handshake *handshake, keepsock_error **error)
{
    keepsock_segment packet;
    int32_t client, server;
    uint32_t again;
    size_t i;

    printf("The handshake:\n\n%s\n\n", keepsock_handshake_lines(handshake));
    for (i = 0; i < 3; i++) {
        if (keepsock_handshake_segment(handshake, i, &packet, sizeof packet, error) != KEEPSOCK_OK
            || keepsock_handshake_states(handshake, i, &client, &server, error) != KEEPSOCK_OK
            || keepsock_handshake_retransmissions(handshake, i, &again, error) != KEEPSOCK_OK)
            return 0;
        printf("    %-3s %-3s  seq %10" PRIu32 "  ack %10" PRIu32 "  then client %s, server %s",
               packet.flags & KEEPSOCK_TCP_SYN ? "SYN" : "", packet.flags & KEEPSOCK_TCP_ACK ? "ACK" : "",
               packet.seq, packet.ack, keepsock_tcp_state_name(client), keepsock_tcp_state_name(server));
        if (again > 0)
            printf(" (sent again: %" PRIu32 ")", again);
        putchar('\n');
    }
    printf("\n%s\n", keepsock_handshake_diagram(handshake));
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
    int32_t captures;
    int exit_status = 1;

    if (argc > 2 || (endpoint != NULL && port_of(endpoint) == 0)) {
        fprintf(stderr, "usage: handshake [HOST:PORT]\n");
        return 2;
    }

    /* A server keeps SYNs if it is told to before it listens. */
    if (endpoint == NULL) {
        if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
            || keepsock_options_set_save_syn(options, true, &error) != KEEPSOCK_OK
            || keepsock_server_listen("127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK)
            goto done;
        endpoint = keepsock_server_endpoint(server);
    }

    /* The watch begins before the connection does. */
    captures = keepsock_capture_new(port_of(endpoint), &capture, &error);
    if (captures == KEEPSOCK_ERR_PERMISSION_DENIED || captures == KEEPSOCK_ERR_UNSUPPORTED) {
        fprintf(stderr, "handshake: %s\n", keepsock_error_message(error));
        keepsock_error_free(error);
        error = NULL;
        exit_status = 3;
        if (server == NULL) /* the SYN that this side sends is not kept either */
            goto done;
    } else if (captures != KEEPSOCK_OK) {
        goto done;
    }

    if (keepsock_client_connect(endpoint, NULL, &client, &error) != KEEPSOCK_OK)
        goto done;
    printf("%s\n\n", keepsock_client_name(client));
    if (server != NULL) {
        if (keepsock_server_accept(server, &accepted, &error) != KEEPSOCK_OK)
            goto done;
        show_syn(accepted);
    }

    if (capture != NULL
        && keepsock_capture_handshake(capture, client, PATIENCE_MS, &handshake, &error) == KEEPSOCK_OK
        && show_handshake(handshake, &error))
        exit_status = 0;

done:
    if (error != NULL) {
        fprintf(stderr, "handshake: %s\n", keepsock_error_message(error));
        exit_status = 1;
    }
    keepsock_error_free(error);
    keepsock_handshake_free(handshake);
    keepsock_capture_free(capture);
    keepsock_client_free(accepted);
    keepsock_client_free(client);
    keepsock_server_free(server);
    keepsock_options_free(options);
    return exit_status;
}
