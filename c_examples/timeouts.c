/*
 * timeouts.c - provokes three timeouts and a refused connection, and prints the errors
 *
 *     timeouts
 *
 * Makes both sides of its connections itself, on the loopback address and any
 * free port. Exit status: 0 all failed as expected, 1 not.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>

/* Prints and frees an error. The status is for programs, the message for people;
 * a failed connect also lists each attempt. */
static int expect(const char *what, int32_t status, int32_t expected, keepsock_error **error)
{
    size_t i;
    keepsock_attempt attempt;

    printf("%s\n    %s: %s\n", what, keepsock_status_name(status), keepsock_error_message(*error));
    if (keepsock_error_transferred(*error) > 0)
        printf("    transferred before that: %zu bytes\n", keepsock_error_transferred(*error));
    for (i = 0; keepsock_error_attempt(*error, i, &attempt, sizeof attempt) == KEEPSOCK_OK; i++)
        printf("    attempt %zu: %s %s: %s after %" PRId64 " us (os error %" PRId32 ")\n", i + 1,
                   attempt.stage, attempt.address, keepsock_status_str(attempt.status), attempt.elapsed_us,
                   attempt.os_error);
    keepsock_error_free(*error);
    *error = NULL;

    if (status == expected)
        return 1;
    fprintf(stderr, "timeouts: %s: expected %s\n", what, keepsock_status_name(expected));
    return 0;
}

int main(void)
{
    enum { BACKLOG = 1, CLIENTS = 8, BLOCK = 1 << 20, BLOCKS = 64 };
    keepsock_options *options = NULL, *listening = NULL;
    keepsock_server *server = NULL;
    keepsock_client *client[CLIENTS] = { NULL };
    keepsock_client *peer = NULL, *nobody = NULL;
    keepsock_error *error = NULL;
    char reply[10], address[64], where[KEEPSOCK_TEXT_SIZE];
    char *block = calloc(1, BLOCK);
    int32_t status = KEEPSOCK_OK;
    int i, exit_status = 1;

    if (block == NULL) {
        fprintf(stderr, "timeouts: no memory\n");
        goto done;
    }

    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, 3000, &error) != KEEPSOCK_OK
        || keepsock_options_set_read_timeout(options, 200, &error) != KEEPSOCK_OK
        || keepsock_options_set_write_timeout(options, 200, &error) != KEEPSOCK_OK
        || keepsock_options_new(&listening, &error) != KEEPSOCK_OK
        || keepsock_options_set_backlog(listening, BACKLOG, &error) != KEEPSOCK_OK
        || keepsock_server_listen("127.0.0.1:0", listening, &server, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK
        || keepsock_client_connect(where, options, &client[0], &error) != KEEPSOCK_OK
        || keepsock_server_accept(server, &peer, &error) != KEEPSOCK_OK)
        goto done;

    /* The peer sends 3 bytes of 10. They stay in the read buffer. */
    if (keepsock_client_write_str(peer, "abc", &error) != KEEPSOCK_OK)
        goto done;
    status = keepsock_client_read_exact(client[0], reply, sizeof reply, &error);
    if (!expect("read 10 bytes from a peer that sent 3", status, KEEPSOCK_ERR_TIMED_OUT, &error))
        goto done;

    /* The peer does not read, so all buffers become full. */
    for (i = 0, status = KEEPSOCK_OK; i < BLOCKS && status == KEEPSOCK_OK; i++)
        status = keepsock_client_write_all(client[0], block, BLOCK, &error);
    if (!expect("write to a peer that does not read", status, KEEPSOCK_ERR_TIMED_OUT, &error))
        goto done;

    /* The server does not accept: when its backlog is full, the kernel does not
     * answer the next connection request. */
    for (i = 1, status = KEEPSOCK_OK; i < CLIENTS && status == KEEPSOCK_OK; i++)
        status = keepsock_client_connect(where, options, &client[i], &error);
    if (!expect("connect to a server that does not answer", status, KEEPSOCK_ERR_TIMED_OUT, &error))
        goto done;

    /* No process listens. The program sets two addresses, so no lookup is needed,
     * and both are tried. The port belonged to this program, so it is free now. */
    snprintf(address, sizeof address, "[::1]:%u", (unsigned)keepsock_server_port(server));
    if (keepsock_options_add_remote_address(options, address, &error) != KEEPSOCK_OK
        || keepsock_options_add_remote_address(options, where, &error) != KEEPSOCK_OK
        || keepsock_server_close(server, &error) != KEEPSOCK_OK)
        goto done;
    status = keepsock_client_connect("nobody.example:80", options, &nobody, &error);
    if (!expect("connect to a port without a listener", status, KEEPSOCK_ERR_REFUSED, &error))
        goto done;
    exit_status = 0;

done:
    keepsock_error_print("timeouts", &error);
    keepsock_client_free(nobody);
    /* The peer no longer reads, so a graceful close would wait for it. */
    keepsock_client_abort(client[0], NULL);
    keepsock_client_free(peer);
    for (i = 0; i < CLIENTS; i++)
        keepsock_client_free(client[i]);
    keepsock_server_free(server);
    keepsock_options_free(listening);
    keepsock_options_free(options);
    free(block);
    return exit_status;
}
