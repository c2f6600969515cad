/*
 * push_server.c - sends each line of its standard input to every client
 *
 *     push_server [endpoint]
 *     tail -f /var/log/messages | push_server '*:7000'
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port) and prints where.
 * Clients connect and listen (push_client); the server sends whenever it has
 * something to say. At the end of its input it lets the clients go and ends.
 * Exit status: 0 ended so, 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>
#include <string.h>

/* One thread for each client. Sending is main's job, and clients have nothing
 * to say, so all that is left here is to greet and to wait for the end: the
 * client closes (length 0), vanishes (KEEPSOCK_ERR_DEAD) or main drains. */
static void attend(keepsock_client *client, void *user)
{
    keepsock_error *error = NULL;
    char unwanted[256];
    size_t len = 1;

    (void)user;
    if (keepsock_client_write_str(client, "welcome\n", &error) == KEEPSOCK_OK)
        while (len > 0 && keepsock_client_read(client, unwanted, sizeof unwanted, &len, &error) == KEEPSOCK_OK)
            ;

    if (error != NULL && keepsock_error_status(error) != KEEPSOCK_ERR_DRAINING)
        fprintf(stderr, "%s: %s\n", keepsock_client_name(client), keepsock_error_message(error));
    keepsock_error_free(error);
}

int main(int argc, char **argv)
{
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    char line[1024];
    keepsock_broadcast result;
    uint32_t finished, cut;
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: push_server [endpoint]\n");
        return 2;
    }

    /* No options: the defaults keep idle connections alive through firewalls
     * and notice a client that vanished within two minutes. */
    if (keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", NULL, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve(server, NULL, attend, NULL, &service, &error) != KEEPSOCK_OK)
        goto done;
    puts(keepsock_server_endpoint(server));
    fflush(stdout);

    /* broadcast never waits for a slow reader: one who has fallen so far
     * behind that its buffer is full is cut off, and nobody else notices. */
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (keepsock_service_broadcast(service, line, strlen(line), &result, sizeof result, &error) != KEEPSOCK_OK)
            goto done;
        printf("sent to %" PRIu32 ", cut off %" PRIu32 "\n", result.sent, result.cut);
        fflush(stdout);
    }

    if (keepsock_service_drain(service, 5000, &finished, &cut, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " finished, %" PRIu32 " cut\n", finished, cut);
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "push_server: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    return exit_status;
}
