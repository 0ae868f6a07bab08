package petclinic;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Comparator;
import java.util.List;
import java.util.stream.StreamSupport;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RestController;

@RestController
class Clinic {
    record Page(String greeting, String host, List<Pet> pets) {}

    private final Pets pets;
    private final String greeting;

    Clinic(Pets pets, @Value("${clinic.greeting}") String greeting) {
        this.pets = pets;
        this.greeting = greeting;
    }

    @GetMapping("/")
    Page page() throws UnknownHostException {
        List<Pet> all = StreamSupport.stream(pets.findAll().spliterator(), false)
            .sorted(Comparator.comparing(Pet::name))
            .toList();
        return new Page(greeting, InetAddress.getLocalHost().getHostName(), all);
    }

    @PostMapping("/pets")
    Pet admit(@RequestBody Pet pet) {
        return pets.save(pet);
    }
}
