/* A server with a heartbeat whose connections are in a group. Under valgrind this shows that the
   event loop computes its timers from initialized memory only. */
#include <keepsock.h>

#include <stdio.h>
#include <string.h>

static void joins(keepsock_conn conn, void *user)
{
    (void)user;
    if (keepsock_conn_join(conn, "all", NULL) != KEEPSOCK_OK) {
        keepsock_conn_abort(conn, NULL);
    }
}

static void echoes(keepsock_conn conn, const void *buf, size_t len, void *user)
{
    (void)user;
    keepsock_conn_send(conn, buf, len, NULL);
}

static int fails(const char *what, keepsock_error *error)
{
    fprintf(stderr, "%s: %s\n", what, keepsock_error_message(error));
    return 1;
}

int main(void)
{
    keepsock_callbacks callbacks;
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    uint32_t sent = 0;
    char text[12], where[KEEPSOCK_TEXT_SIZE];

    memset(&callbacks, 0, sizeof callbacks);
    callbacks.size = sizeof callbacks;
    callbacks.on_open = joins;
    callbacks.on_data = echoes;
    if (keepsock_options_new(&options, &error)
        || keepsock_options_set_heartbeat(options, 100, "beat", 4, &error)
        || keepsock_server_listen("127.0.0.1:0", options, &server, &error)
        || keepsock_server_serve_events(server, NULL, &callbacks, NULL, &service, &error)
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error)
        || keepsock_client_connect(where, NULL, &client, &error)) {
        return fails("start", error);
    }
    if (keepsock_client_write_all(client, "echo", 4, &error))
        return fails("write", error);
    /* Heartbeats may come before a delayed echo. */
    do {
        if (keepsock_client_read_exact(client, text, 4, &error))
            return fails("echo", error);
    } while (memcmp(text, "beat", 4) == 0);
    if (keepsock_client_read_exact(client, text + 4, sizeof text - 4, &error))
        return fails("two heartbeats", error);
    if (memcmp(text, "echobeatbeat", sizeof text) != 0) {
        fprintf(stderr, "received %.12s\n", text);
        return 1;
    }
    if (keepsock_service_broadcast(service, "all", "x", 1, &sent, NULL, NULL, NULL, &error)) {
        return fails("broadcast", error);
    }
    keepsock_client_close(client, NULL);
    keepsock_client_free(client);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_options_free(options);
    return sent == 1 ? 0 : 1;
}
