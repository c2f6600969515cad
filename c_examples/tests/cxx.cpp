// A C++ program includes the C header, links and runs.
#include <keepsock.h>

#include <cstdio>
#include <cstring>

int main()
{
    keepsock_server *server = nullptr;
    keepsock_client *client = nullptr, *accepted = nullptr;
    keepsock_error *error = nullptr;
    char line[16], where[KEEPSOCK_TEXT_SIZE];

    const bool ok = keepsock_server_listen("127.0.0.1:0", nullptr, &server, &error) == KEEPSOCK_OK
        && keepsock_server_endpoint(server, 0, where, sizeof where, nullptr, &error) == KEEPSOCK_OK
        && keepsock_client_connect(where, nullptr, &client, &error) == KEEPSOCK_OK
        && keepsock_server_accept(server, &accepted, &error) == KEEPSOCK_OK
        && keepsock_client_write_str(accepted, "hello\n", &error) == KEEPSOCK_OK
        && keepsock_client_read_line(client, line, sizeof line, nullptr, &error) == KEEPSOCK_OK
        && std::strcmp(line, "hello") == 0;
    std::printf("keepsock %s: %s\n", keepsock_version(), ok ? line : keepsock_error_message(error));

    keepsock_error_free(error);
    keepsock_client_free(client);
    keepsock_client_free(accepted);
    keepsock_server_free(server);
    return ok ? 0 : 1;
}
