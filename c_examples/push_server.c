/*
 * push_server.c - sends each line of its standard input to every client
 *
 *     push_server [endpoint]
 *     tail -f /var/log/messages | push_server '*:7000'
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port) and prints where.
 * Clients connect and receive (push_client); the server sends whenever it has
 * a line. At the end of its input it closes the connections and ends.
 * Exit status: 0 end of input, 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>
#include <string.h>

/* Runs on one thread for each client. main sends, and clients send nothing, so
 * this function only greets and waits for the end of the connection: the client
 * closes (length 0), vanishes (KEEPSOCK_ERR_DEAD), or main drains the service. */
static void attend(keepsock_client *client, void *user)
{
    keepsock_error *error = NULL;
    char unwanted[256];
    size_t len = 1;

    (void)user;
    if (keepsock_client_write_str(client, "welcome\n", &error) == KEEPSOCK_OK)
        while (len > 0 && keepsock_client_read(client, unwanted, sizeof unwanted, &len, &error) == KEEPSOCK_OK)
            ;

    /* The message names the connection. */
    if (error != NULL && keepsock_error_status(error) != KEEPSOCK_ERR_DRAINING)
        fprintf(stderr, "push_server: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
}

int main(int argc, char **argv)
{
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    char line[1024];
    uint32_t sent, completed, reset;
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: push_server [endpoint]\n");
        return 2;
    }

    /* No options: the default keepalive keeps idle connections alive in firewalls
     * and detects a vanished client within two minutes. */
    if (keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", NULL, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve(server, NULL, attend, NULL, &service, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK)
        goto done;
    puts(where);
    fflush(stdout);

    /* broadcast never waits for a slow client: it resets a client whose buffer is
     * full, and other clients are not affected. */
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (keepsock_service_broadcast(service, NULL, line, strlen(line), &sent, &reset, NULL, NULL, &error) != KEEPSOCK_OK)
            goto done;
        printf("sent to %" PRIu32 ", reset %" PRIu32 "\n", sent, reset);
        fflush(stdout);
    }

    if (keepsock_service_drain(service, 5000, &completed, &reset, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " completed, %" PRIu32 " reset\n", completed, reset);
    exit_status = 0;

done:
    keepsock_error_print("push_server", &error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    return exit_status;
}
