/* A program of a project that uses an installed keepsock. It is compiled in every standard of C and C++. */
#include <keepsock.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    keepsock_server *server = NULL;
    keepsock_client *client = NULL, *accepted = NULL;
    keepsock_error *error = NULL;
    char endpoint[KEEPSOCK_TEXT_SIZE], line[64];
    int status = 1;

    if (keepsock_server_listen("127.0.0.1:0", NULL, &server, &error) == KEEPSOCK_OK
        && keepsock_server_endpoint(server, 0, endpoint, sizeof endpoint, NULL, &error) == KEEPSOCK_OK
        && keepsock_client_connect(endpoint, NULL, &client, &error) == KEEPSOCK_OK
        && keepsock_server_accept(server, &accepted, &error) == KEEPSOCK_OK
        && keepsock_client_write_str(accepted, "welcome\n", &error) == KEEPSOCK_OK
        && keepsock_client_read_line(client, line, sizeof line, NULL, &error) == KEEPSOCK_OK
        && strcmp(line, "welcome") == 0) {
        printf("keepsock %s\n", keepsock_version());
        status = 0;
    } else {
        keepsock_error_print("user", &error);
    }
    keepsock_client_free(accepted);
    keepsock_client_free(client);
    keepsock_server_free(server);
    return status;
}
