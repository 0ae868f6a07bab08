package petclinic;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** A clinic's register of pets. Where it runs is none of its business: all is configuration. */
@SpringBootApplication
public class Petclinic {
    public static void main(String[] arguments) {
        SpringApplication.run(Petclinic.class, arguments);
    }
}
