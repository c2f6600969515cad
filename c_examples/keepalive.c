/*
 * keepalive.c - sets TCP keepalive, and reads back the values that the kernel uses
 *
 *     keepalive
 *
 * Makes both sides of a connection itself, on 127.0.0.1 and any free port.
 * Exit status: 0 as expected, 1 not.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>

static int show(const char *what, const keepsock_client *client, keepsock_error **error)
{
    keepsock_keepalive now;

    if (keepsock_client_keepalive(client, &now, sizeof now, error) != KEEPSOCK_OK)
        return 0;
    if (now.enabled)
        printf("%-34s idle %" PRId64 " ms, interval %" PRId64 " ms, count %" PRIu32 "\n", what, now.idle_ms,
               now.interval_ms, now.count);
    else
        printf("%-34s off\n", what);
    return 1;
}

int main(void)
{
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_client *client = NULL, *accepted = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];
    int exit_status = 1;

    /* Options are set before the socket exists: they apply from the first packet
     * on, and on a listener to every connection that it accepts. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_keepalive(options, 60000, 10000, 3, &error) != KEEPSOCK_OK
        || keepsock_server_listen("127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK
        || keepsock_client_connect(where, NULL, &client, &error) != KEEPSOCK_OK
        || keepsock_server_accept(server, &accepted, &error) != KEEPSOCK_OK)
        goto done;
    if (!show("accepted, from the listener", accepted, &error) || !show("connected, defaults", client, &error))
        goto done;

    /* On an open connection. The kernel uses whole seconds: values are rounded
     * up, as reading them back shows. */
    if (keepsock_client_set_keepalive(client, 20500, 5000, 4, &error) != KEEPSOCK_OK
        || !show("set to 20.5 s, 5 s, 4", client, &error))
        goto done;

    /* A value out of range is rejected, and no value changes. */
    if (keepsock_client_set_keepalive(client, 20000, 0, 4, &error) == KEEPSOCK_OK) {
        fprintf(stderr, "keepalive: an interval of 0 should have been rejected\n");
        goto done;
    }
    printf("%-34s %s\n", "set to 20 s, 0 s, 4", keepsock_error_message(error));
    keepsock_error_free(error);
    error = NULL;
    if (!show("still", client, &error))
        goto done;

    if (keepsock_client_set_keepalive(client, KEEPSOCK_INFINITE, 0, 0, &error) != KEEPSOCK_OK || !show("disabled", client, &error))
        goto done;
    exit_status = 0;

done:
    keepsock_error_print("keepalive", &error);
    keepsock_client_free(accepted);
    keepsock_client_free(client);
    keepsock_server_free(server);
    keepsock_options_free(options);
    return exit_status;
}
